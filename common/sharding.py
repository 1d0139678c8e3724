"""A policy that FSDP 2 shards: who holds its weights whole, when, and how they get there.

An update gathers one layer after the other, in the forward pass of the whole model alone: parts of it must not be
called on their own, and all processes have to make the same number of passes, or one would wait for ever in a gather.
Sampling cannot keep to that, as each process decodes until its own longest completion ends, so every process holds the
whole policy while it samples, in the precision of the forward pass, as it does under ZeRO-3 in TRL.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP 2 shards ``model``."""
    return isinstance(model, FSDPModule)


def shard(accelerator: Accelerator, model: nn.Module) -> None:
    """Shard ``model`` in place where the run is launched with FSDP 2, as accelerate itself does once training begins.

    Before that the policy would be whole and on the CPU, where it could not be evaluated, nor sampled from for bonuses.
    """
    if accelerator.is_fsdp2:
        fsdp2_prepare_model(accelerator, model)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """While open, every process holds all weights of ``model``, so that processes may run it at different paces.

    Every process has to enter and leave. Nothing is done for a model that is not sharded.
    """
    units = [module for module in model.modules() if is_sharded(module)]
    if not units:
        yield
        return
    # The root and the output head keep their weights after a forward pass anyway.
    kept = {unit._get_fsdp_state() for unit in units if unit in (model, model.get_output_embeddings())}
    freed = [unit for unit in units if unit._get_fsdp_state() not in kept]
    for unit in units:
        unit.unshard()
    for unit in freed:
        unit.set_reshard_after_forward(False, recurse=False)
    # By this mark transformers' ``generate`` makes all processes decode until the last of them has ended.
    model._is_fsdp_managed_module = False
    try:
        yield
    finally:
        model._is_fsdp_managed_module = True
        for unit in freed:
            unit.set_reshard_after_forward(AcceleratorState().fsdp_plugin.reshard_after_forward, recurse=False)
        reshard(model)


def reshard(model: nn.Module) -> None:
    """Leave each process its part of the weights of ``model`` that a forward pass has gathered."""
    for module in model.modules():
        if is_sharded(module):
            module.reshard()


def most_passes(model: nn.Module, count: int, device: torch.device) -> int:
    """The passes that this process has to make over ``model`` for ``count`` of its own: as many as any other process.

    To be called by every process where the model is sharded; elsewhere it is ``count``.
    """
    if not is_sharded(model):
        return count
    most = torch.tensor(count, device=device)
    torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return int(most)


def final_states(model: nn.Module, backbone: nn.Module, **inputs) -> Tensor:
    """The final-norm output (B, T, H) of ``backbone``, the part of the causal language model ``model`` below its head.

    Of a sharded model all has to run, the head for one token: weights are gathered by its own forward pass alone.
    """
    if not is_sharded(model):
        return backbone(**inputs)[0]
    states = []
    hook = backbone.register_forward_hook(lambda module, args, output: states.append(output[0]))
    try:
        model(**inputs, logits_to_keep=1)
    finally:
        hook.remove()
    return states[0]


def whole_head(model: nn.Module) -> nn.Module:
    """The output head of ``model`` with whole weights: itself, or of a sharded model one gathered from all processes.

    Its weights have the type they are trained in, not that of the forward pass.
    """
    head = model.get_output_embeddings()
    if not is_sharded(model):
        return head
    if is_sharded(head):
        head.reshard()
    gathered = nn.Linear(1, 1, bias=head.bias is not None, device="meta")
    for name, value in head.named_parameters():
        setattr(gathered, name, nn.Parameter(whole(value.detach()), requires_grad=False))
    return gathered


def whole(value):
    """A sharded tensor as a plain one, gathered from all processes; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This process' part of a sharded tensor; any other as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def shared_out(value: Tensor, like: Tensor) -> Tensor:
    """The whole tensor ``value``, which every process has, sharded as ``like`` is; itself where that is not sharded."""
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
