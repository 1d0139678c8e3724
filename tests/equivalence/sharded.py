"""What two processes do to a policy that FSDP 2 shards; as a program, launched with configs/accelerate/fsdp.yaml.

    accelerate launch --config_file configs/accelerate/fsdp.yaml -m tests.equivalence.sharded FOLDER FLAG...

The flags are those of run_countdown.py, for the last part.
"""

import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.fsdp import MixedPrecisionPolicy

from common.sharding import local, shard, whole_head
from common.state import save_state
from policy.features import FeaturePass
from policy.load import load_policy
from policy.padding import pad_tokens
from tests.equivalence.cases import FAST
from tests.equivalence.scripted import ScriptedTrainer, build, forget_imports, run_case, weights_of
from tests.processes import ROOT
from tests.sharding_on_cpu import shard_on_cpu
from training.finite_updates import FiniteUpdates

# All features of the policy and all of the initial policy; states alone, for which the head has nothing to do.
SHARDED = {
    "policy": {"use_ir": "sc,cfn,rnd,ppl,entropy-adv,repexp,knn+,smooth,unlikely,certain,rarity"},
    "initial policy": {"use_ir": "sc,rnd,repexp", "sc_annotator": "offline", "rnd_mode": "reference"}
    | {"repexp_model": "initial"},
    "states": {"use_ir": "rnd"},
}
SHARDED = {name: FAST | flags for name, flags in SHARDED.items()}
# One process has one completion, the other five, two in each pass.
COMPLETIONS = [[[11, 12]], [[13, 14, 15], [16], [17, 18, 19, 20], [21, 22], [23, 24, 25, 26, 27]]]


def adam_trainer(folder: Path, processes: int) -> ScriptedTrainer:
    """A trainer with the optimiser of the scripts, which saves a checkpoint after each step."""
    size = {"per_device_train_batch_size": 12 // processes}
    saves = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-4}
    return build(SHARDED["states"], folder, ScriptedTrainer, capture=False, **size, **saves)


def tokens_of(completions: list[list[int]]) -> dict[str, torch.Tensor]:
    """The arguments of a feature pass over ``completions`` of one prompt."""
    prompt_ids, prompt_mask = pad_tokens([[5, 6, 7, 8]] * len(completions), "left", 0, "cpu")
    completion_ids, completion_mask = pad_tokens(completions, "right", 0, "cpu")
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return dict(zip(names, (prompt_ids, prompt_mask, completion_ids, completion_mask), strict=True))


def features_of(trainer: ScriptedTrainer, completions: list[list[int]]) -> dict[str, torch.Tensor]:
    """All features of ``completions``, and the hidden states as they are when nothing else is asked for."""
    features = FeaturePass(trainer.accelerator.unwrap_model(trainer.model), 1.0, batch_size=2)
    states = features(**tokens_of(completions), autocast=nullcontext, names={"hidden"})
    return features(**tokens_of(completions), autocast=nullcontext) | {"states": states["hidden"]}


def finite_after_one_nan(trainer: ScriptedTrainer) -> list[bool]:
    """What this process says of a gradient before and after one process finds a NaN in its part."""
    model = trainer.model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = FiniteUpdates._is_finite(trainer.args, model)
    if trainer.accelerator.is_main_process:
        local(next(model.parameters()).grad)[0] = float("nan")
    after = FiniteUpdates._is_finite(trainer.args, model)
    model.zero_grad()
    return [before, after]


def head_after_a_pass_in_bfloat16(trainer: ScriptedTrainer) -> bool:
    """Whether the gathered output head has the weights that are trained, not those of the pass before."""
    plugin, policy = trainer.accelerator.state.fsdp_plugin, load_policy("tiny")
    trained = policy.get_output_embeddings().weight.detach().clone()
    usual, plugin.mixed_precision_policy = plugin.mixed_precision_policy, MixedPrecisionPolicy(torch.bfloat16)
    shard(trainer.accelerator, policy)
    plugin.mixed_precision_policy = usual
    with torch.no_grad():
        policy(input_ids=torch.tensor([[5, 6, 7, 8]]))
    assert policy.get_output_embeddings().weight.dtype == torch.bfloat16
    return torch.equal(whole_head(policy).weight, trained)


def main(folder: Path, flags: list[str]) -> None:
    for case in SHARDED:
        run_case(case, folder, processes=2, cases=SHARDED)
    trainer = adam_trainer(folder / "adam", processes=2)
    rank = trainer.accelerator.process_index
    save_state(features_of(trainer, COMPLETIONS[rank]), folder, f"features{rank}")
    trainer.train()
    resumed = adam_trainer(folder / "resumed", processes=2)
    resumed.train(resume_from_checkpoint=str(folder / "adam" / "checkpoint-1"))
    kinds = sorted({type(parameter).__name__ for parameter in trainer.model.parameters()})
    left = {"resumed": weights_of(resumed), "finite": finite_after_one_nan(trainer), "kinds": kinds}
    save_state(left | {"head": head_after_a_pass_in_bfloat16(trainer)}, folder, f"adam{rank}")
    sys.argv = ["run_countdown.py", *flags]
    runpy.run_path(str(ROOT / "run_countdown.py"), run_name="__main__")


if __name__ == "__main__":
    shard_on_cpu()
    PartialState(cpu=True)
    forget_imports()
    main(Path(sys.argv[1]), sys.argv[2:])
