"""Supervised warm start before reinforcement learning, on plain or behaviour-injected traces.

python run_sft.py --data data/injected.jsonl --model_name=Qwen/Qwen2.5-1.5B
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_sft.py")  # before anything large is imported
choose_threads()  # before torch is imported

from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset

from cli.parse_sft import parse_sft_options
from common.errors import UserError, run_cli
from common.files import mark_made, remove_made
from policy.chat_checks import check_conversations
from policy.end_tokens import described_end_tokens, end_tokens_differ
from policy.load import check_lora_targets, generation_config_of, is_embedded, load_tokenizer, resolve, save_merged
from policy.options import PolicyOptions
from policy.precision import Precision
from policy.setup_line import setup_of, unseen_gpu
from tasks.traces import fitting_traces, load_traces
from training.callbacks import install_progress
from training.folder_swap import replacing
from training.identity import sft_settings
from training.new_policy import NewPolicyOptions, build, spells
from training.run_folder import check_run_folder, create_run_folder, refuse_used, take_recorded_threads
from training.sft import SFTOptions, build_trainer, checkpoint_to_resume, longest_trace


def main() -> None:
    # ---- flags
    options, config = parse_sft_options("run_sft.py")
    resolve(options.model_name)
    check_lora_targets(options.model_name, options)
    folder = Path(config.output_dir)
    if config.process_index == 0:
        check_run_folder(folder)
        if not options.resume:
            refuse_used(folder)
    if config.process_index == 0 and (warning := unseen_gpu()):
        print(warning, flush=True)

    # ---- data
    rows = load_traces(options.data, options.split)
    tokenizer = load_tokenizer(options.model_name)
    if is_embedded(options.model_name) and spells(tokenizer, rows):
        options.model_name = sized_policy(rows, folder / "start", options, config.seed)
        tokenizer = load_tokenizer(options.model_name)
    check_conversations(rows, tokenizer, options.model_name)
    generation = generation_config_of(options.model_name)
    if end_tokens_differ(tokenizer, generation):
        print(described_end_tokens(tokenizer, generation), flush=True)
    rows = fitting_traces(rows, tokenizer, longest_trace(options, config))

    # ---- policy, trainer, run folder
    settings = sft_settings(options, config, rows)
    checkpoint = checkpoint_to_resume(folder, options.resume, settings)
    if checkpoint is not None:
        take_recorded_threads(checkpoint.parent)
    trainer = build_trainer(options, config, rows, tokenizer, settings, resumes=checkpoint is not None)
    if config.process_index == 0:
        setup = setup_of(trainer.model, config.device, str(Precision.of(config)), sampler="none")
        print(setup, flush=True)
        flags = {"sft": asdict(options), "trainer": config.to_dict()}
        lock = create_run_folder(folder, flags, bool(options.resume), asdict(setup))
    config.further_flags = asdict(options)
    install_progress(trainer, {"loss": "loss", "token accuracy": "mean_token_accuracy"})

    # ---- train, save
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_policy(trainer, folder, options)
    if config.process_index == 0:
        print(f"policy: {folder / 'final'} ({len(rows)} traces, {trainer.state.global_step} updates)")
        lock.release()


def sized_policy(rows: Dataset, folder: Path, options: SFTOptions, seed: int) -> str:
    """The folder of a policy with random weights and a tokenizer trained on ``rows``."""
    if options.lora:
        raise UserError(
            f"--lora freezes weights, and --model_name={options.model_name} begins with random ones on this task."
        )
    state = PartialState()
    with state.main_process_first():
        if state.is_main_process and not options.resume and (folder / "config.json").exists():
            remove_made(folder)  # a start that failed may have had other traces
        if not folder.exists():
            build(rows, NewPolicyOptions(data=options.data, output=str(folder), seed=seed))
            mark_made(folder, options.data)
    return str(folder)


def save_policy(trainer, folder: Path, options: PolicyOptions) -> None:
    """The trained policy in ``final/``; with LoRA that is the merged one, and ``adapter/`` holds the adapter."""
    place, is_main = folder / ("adapter" if options.lora else "final"), trainer.is_world_process_zero()
    with replacing(place, is_main, trainer.accelerator.wait_for_everyone) as new:
        trainer.save_model(str(new))
    if options.lora and is_main:
        with replacing(folder / "final") as new:
            save_merged(str(place), new, options)


if __name__ == "__main__":
    run_cli(main)
