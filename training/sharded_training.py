"""Training of a policy that FSDP 2 shards: its optimiser, and checkpoints in the files of one process.

transformers writes a sharded run's weights a second time, and its optimiser under names of its own, which no run
without FSDP reads. Here the weights stand once, as safetensors, beside the optimiser's plain state, so that any number
of processes goes on from them.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from common.errors import UserError
from common.sharding import is_sharded, reshard, shared_out, whole


class ShardedTraining(Trainer):
    """`transformers.Trainer` that trains, saves and loads a sharded policy as if it were not; others as before.

    To be named after TRL's trainer among the bases of a class, so that it stands between TRL and transformers.
    """

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        # A forward pass before training leaves some weights gathered, which are not those that are trained.
        reshard(self.model if model is None else model)
        return super().create_optimizer(model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        is_main = self.args.should_save
        state = whole_state(self.optimizer, keep=is_main)
        if is_main:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        if is_sharded(model):
            load_weights(model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint)
        saved = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", mmap=True, weights_only=True)
        load_optimizer(self.optimizer, saved)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


def whole_state(optimizer: Optimizer, keep: bool) -> dict:
    """What ``optimizer.state_dict()`` would be on one process, on the CPU; to be called by every process.

    A process that does not ``keep`` it takes part in gathering it, and gets no slots.
    """
    state = optimizer.state_dict()
    slots = {}
    for number, values in state["state"].items():
        gathered = {name: whole(value) for name, value in values.items()}
        if keep:
            slots[number] = {name: _on_cpu(value) for name, value in gathered.items()}
    return state | {"state": slots}


def load_optimizer(optimizer: Optimizer, saved: dict) -> None:
    """Load what `whole_state` gave on any number of processes; every process has ``saved``."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots = {
        number: {
            name: shared_out(value, parameters[number]) if _is_like(value, parameters[number]) else value
            for name, value in values.items()
        }
        for number, values in saved["state"].items()
    }
    optimizer.load_state_dict(saved | {"state": slots})


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the safetensors of ``folder`` into the sharded ``model``.

    Raises `UserError` where the folder lacks a weight of the model.
    """
    reshard(model)
    targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    found = set()
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as saved:
            for name in saved.keys():  # noqa: SIM118, it is no dict
                targets[name].copy_(shared_out(saved.get_tensor(name), targets[name]))
                found.add(targets[name])
    missing = [name for name, parameter in model.named_parameters() if parameter not in found]
    if missing:
        raise UserError(f"{folder} lacks the weights {', '.join(missing[:3])}; resume from another checkpoint.")


def _on_cpu(value):
    return value.cpu() if isinstance(value, Tensor) else value


def _is_like(value, parameter: Tensor) -> bool:
    """Whether ``value`` is a slot with an entry for each weight, not a count of steps."""
    return isinstance(value, Tensor) and value.shape == parameter.shape
