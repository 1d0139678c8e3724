"""Toy runs of every case, and a trainer whose completions depend on prompt, place in the group and step alone.

Sampling draws from the random state of each process, so one process and two sample different completions; the scripted
ones are the same however the batch is split. As a program it trains cases on as many processes as it is started on
(`tests.processes.run_ranks`), its arguments being a folder and the names of the cases.
"""

import gc
import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from trl import GRPOConfig

from common.sharding import whole
from common.state import save_state
from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline
from policy.load import load_policy, load_tokenizer
from tests.equivalence.cases import CASES
from tests.toys import TRAINER, shallow, stub_encode
from training.trainer import IntrinsicGRPOTrainer

GROUP, LENGTH, STEPS = (TRAINER[name] for name in ("num_generations", "max_completion_length", "max_steps"))
PROMPTS = 3


def correctness(completions, log_extra, **kwargs):
    """About a third of all texts are right, by the sum of their characters; the first character is the answer."""
    texts = [completion[0]["content"] for completion in completions]
    log_extra("answer", [text[:1] for text in texts])
    return [float(sum(map(ord, text)) % 3 == 0) for text in texts]


class ScriptedTrainer(IntrinsicGRPOTrainer):
    """Keeps the bonuses and advantages of every generation batch in ``record``: one dict of tensors per batch."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.record: list[dict[str, torch.Tensor]] = []

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        first = self.accelerator.process_index * len(prompt_ids)
        return [self._completion(ids, (first + row) % GROUP) for row, ids in enumerate(prompt_ids)], None

    def _completion(self, prompt: list[int], place: int) -> list[int]:
        # The hash of integers is the same in every process.
        seed = hash((*prompt, place, self.state.global_step)) % 2**31
        generator = torch.Generator().manual_seed(seed)
        length = int(torch.randint(1, LENGTH + 1, (), generator=generator))
        tokens = torch.randint(5, len(self.processing_class), (length,), generator=generator).tolist()
        return tokens if length == LENGTH else [*tokens[:-1], self.processing_class.eos_token_id]

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        advantages, mask = output["advantages"], output["completion_mask"]
        per_token = advantages * mask if advantages.dim() == 2 else advantages[:, None] * mask
        raw = {f"{item.bonus.name}/{part}": value for item in self._scored for part, value in item.raw.items()}
        self.record.append(raw | {"advantages": self._gather_padded(per_token)})
        return output


def build(
    flags: dict, output_dir: Path, trainer_class=IntrinsicGRPOTrainer, peft_config=None, capture=True, **overrides
) -> IntrinsicGRPOTrainer:
    """A trainer of the embedded policy's lower half on 6 prompts: 3 x 4 completions of up to 8 tokens per update.

    Args:
        flags: of `IntrinsicOptions`.
        overrides: of `GRPOConfig`.
    """
    options = IntrinsicOptions(**flags)
    size = {"output_dir": str(output_dir), "per_device_train_batch_size": PROMPTS * GROUP}
    settings = TRAINER | size | overrides
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Numbers: {n}."}]} for n in range(7, 13)])
    policy = load_policy("tiny")
    return trainer_class(
        model=policy if overrides.get("use_vllm") else shallow(policy),  # an engine loads the whole policy by its name
        args=GRPOConfig(**settings),
        train_dataset=rows,
        reward_funcs=[correctness],
        processing_class=load_tokenizer("tiny"),
        peft_config=peft_config,
        bonuses=BonusPipeline(build_bonuses(options), options.schedules(), options.ir_clip, options.ir_min_std),
        match_mass=options.match_mass,
        encode=stub_encode,
        capture_features=capture,
    )


def build_scripted(flags: dict, output_dir: Path, **overrides) -> ScriptedTrainer:
    """A trainer of scripted completions whose weights follow the gradient itself.

    Adam divides a gradient by its own size, which turns the rounding of a small one into a whole step.
    """
    descent = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}
    return build(flags, output_dir, ScriptedTrainer, capture=False, **(descent | overrides))


def weights_of(trainer: IntrinsicGRPOTrainer) -> dict[str, torch.Tensor]:
    """The policy's whole weights by name."""
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {name: whole(value) for name, value in weights.items()}


def run_case(name: str, folder: Path, processes: int = 1, accumulation: int = 1, cases: dict = CASES) -> None:
    """Train the case ``name`` of ``cases``; each process writes what it is left with to `rank_folder`.

    The 12 completions of an update are shared by ``processes`` and cut into ``accumulation`` passes. Two processes get
    six each, so that the second group lies across both.
    """
    split = {
        "per_device_train_batch_size": PROMPTS * GROUP // (processes * accumulation),
        "gradient_accumulation_steps": accumulation,
    }
    trainer = build_scripted(cases[name], folder, **split)
    trainer.train()
    rank = rank_folder(folder, name, trainer.accelerator.process_index, cases)
    rank.mkdir(parents=True)
    save_state(trainer.bonuses.state_dict(), rank, "bonuses")
    save_state({"batches": trainer.record, "weights": weights_of(trainer)}, rank, "run")
    world = {"processes": trainer.accelerator.num_processes, "kind": trainer.accelerator.distributed_type.value}
    (rank / "world.json").write_text(json.dumps(world), encoding="ascii")


def rank_folder(folder: Path, name: str, rank: int, cases: dict = CASES) -> Path:
    """Where `run_case` puts what process ``rank`` is left with: bonuses, run (batches and weights) and world.json."""
    return folder / f"case{list(cases).index(name)}" / f"rank{rank}"


def forget_imports() -> None:
    """Let the garbage collector pass over everything imported so far: walking it takes half of a toy run's time."""
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    for case in sys.argv[2:]:
        run_case(case, Path(sys.argv[1]), PartialState(cpu=True).num_processes, accumulation=2)
