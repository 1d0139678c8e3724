"""Supervised warm start: flags, policy and trainer."""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from common.errors import UserError
from common.files import read_json, write_json
from common.flags import check_choices, flag
from policy.end_tokens import set_end_tokens, with_end_token
from policy.load import architecture_of, context_length, load_policy, lora_base
from policy.options import EMBEDDED_NAME, PolicyOptions
from policy.precision import adapters_in_float32, check_dtype
from tasks.load import refuse_test_sets
from training.callbacks import MetricsCallback
from training.checkpoint import check_identity, find_checkpoint, saving, without_tied
from training.script_config import ScriptConfig
from training.trackers import shield_trackers
from training.value_checks import check_values

LOSSES = ("completion", "all")
SETTINGS = "settings.json"


@dataclass
class SFTOptions(PolicyOptions):
    """What is learnt, by which policy."""

    data: str = flag("", "Traces: jsonl, parquet, csv or tsv file, folder or hub name, see the README. Needed.")
    split: str = flag("train", "Split of a hub dataset or folder; not test.")
    model_name: str = flag(
        EMBEDDED_NAME,
        "Hub name, folder of a model or adapter, smollm2 (from a package without the hub), tiny or tiny_igsm: "
        "the embedded policies, and for traces that they have no words for "
        "a new one of some five million parameters, with random weights and a tokenizer trained on the traces.",
    )
    from_scratch: bool = flag(False, "Begin with random weights of the same architecture, drawn from --seed.")
    loss_on: str = flag(
        "completion", "Tokens that are learnt: completion, or all (prompt too, as in BRIDGE's program)."
    )
    resume: str = flag(
        "",
        "auto: go on from the newest complete checkpoint of the run folder, or the folder of one. Flags that change "
        "training must be the checkpoint's.",
    )

    def __post_init__(self):
        super().__post_init__()
        check_dtype(self.dtype, trained=not self.lora)
        if not self.data:
            raise UserError("--data is needed: a file of traces, for example from python -m tasks.countdown.bridge.")
        refuse_test_sets(self)
        check_choices(self, loss_on=LOSSES)
        if self.from_scratch and self.lora:
            raise UserError("--from_scratch draws all weights at random; it does not go with --lora, leave one out.")


@dataclass
class SFTRunConfig(ScriptConfig, SFTConfig):
    """`trl.SFTConfig` with defaults by device and the project's run folders."""

    output_dir: str | None = flag(
        None, "Run folder; unset: outputs/sft/<run name>, the name of the data in the place of a bonus."
    )
    learning_rate: float = flag(5e-6, "Peak learning rate.")
    num_train_epochs: float = flag(5.0, "Passes over the traces, unless --max_steps is set.")
    per_device_train_batch_size: int = flag(16, "Traces per forward pass and device.")
    gradient_accumulation_steps: int = flag(1, "Forward passes per update.")
    max_length: int | None = flag(2048, "Most tokens of prompt and completion; longer rows are dropped, and said so.")
    logging_steps: float = flag(10, "Updates between two lines of the log.")
    run_name: str | None = flag(None, "Name of the run in the trackers; unset: the last part of the run folder.")

    def __post_init__(self):
        check_values(self)
        super().__post_init__()


def longest_trace(options: SFTOptions, config: SFTRunConfig) -> int:
    """Most tokens of a trace: ``--max_length`` or the policy's context, whichever is less."""
    limits = [limit for limit in (config.max_length, context_length(options.model_name)) if limit]
    return min(limits) if limits else 10**9


def build_policy(options: SFTOptions, seed: int, folder: Path, resumes: bool = False) -> PreTrainedModel:
    """The policy of ``--model_name``, or one like it with random weights from ``seed``.

    With ``--lora`` on an adapter, ``folder`` of the run gets the merged model (see `lora_base`).
    """
    if not options.from_scratch:
        return load_policy(lora_base(options.model_name, options, folder / "base", resumes), options)
    set_seed(seed)
    return AutoModelForCausalLM.from_config(architecture_of(options.model_name), dtype=options.weight_dtype())


class ResumableSFTTrainer(SFTTrainer):
    """`trl.SFTTrainer` whose checkpoints hold ``settings`` (see `training.identity`) and a mark of completeness."""

    def __init__(self, *args, settings: dict, **kwargs):
        super().__init__(*args, **kwargs)
        adapters_in_float32(self.model)
        self.settings = settings

    def _issue_warnings_after_load(self, load_result):
        super()._issue_warnings_after_load(without_tied(load_result, self.model))

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        is_main = self.accelerator.is_main_process
        with saving(folder, is_main, self.accelerator.wait_for_everyone):
            super()._save_checkpoint(model, trial)
            if is_main:
                write_json(folder / SETTINGS, self.settings)


def checkpoint_to_resume(folder: Path, resume: str, settings: dict) -> Path | None:
    """The checkpoint that ``--resume`` asks for, None for a new run; raises `UserError` where its settings differ."""
    checkpoint = find_checkpoint(folder, resume)
    if resume and checkpoint is None:
        raise UserError(f"--resume={resume!r}: there is no complete checkpoint in {str(folder)!r}; leave --resume out.")
    if checkpoint is not None:
        check_identity(read_json(checkpoint / SETTINGS, "name another checkpoint"), settings)
    return checkpoint


def build_trainer(
    options: SFTOptions,
    config: SFTRunConfig,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    settings: dict,
    resumes: bool = False,
) -> SFTTrainer:
    """TRL's trainer on ``rows``, whose loss is on the completion alone unless ``--loss_on all``.

    ``settings`` are written into every checkpoint; a run that ``resumes`` goes on from one.
    """
    config.completion_only_loss = options.loss_on == "completion"
    folder = Path(config.output_dir)
    config.max_length = None  # too long ones are gone; nothing is cut
    model = build_policy(options, config.seed, folder, resumes)
    set_end_tokens(model, tokenizer)
    trainer = ResumableSFTTrainer(
        model=model,
        args=config,
        train_dataset=with_end_token(rows, tokenizer),
        processing_class=tokenizer,
        peft_config=options.lora_config(),
        callbacks=[MetricsCallback(folder / "metrics.jsonl")],
        settings=settings,
    )
    shield_trackers(trainer)
    return trainer
