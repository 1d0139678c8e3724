"""What the bonuses with networks share: seeded construction and the state of an optimiser."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


def mlp(sizes: Sequence[int], generator: torch.Generator, zero_last: bool) -> nn.Sequential:
    """Leaky-ReLU network with layers of ``sizes``: orthogonal weights of gain sqrt 2, zero biases, on the CPU.

    ``zero_last`` zeroes the last layer. The global random state is neither read nor moved.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layer = skip_init(nn.Linear, inputs, outputs)
        nn.init.orthogonal_(layer.weight, gain=2.0**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.LeakyReLU()]
    if zero_last:
        nn.init.zeros_(layers[-2].weight)
    return nn.Sequential(*layers[:-1])


def cloned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The tensors that ``optimizer`` holds, by index of the parameter as text."""
    return {str(index): cloned(slot) for index, slot in optimizer.state_dict()["state"].items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore what `optimizer_state` returned; learning rate and the like stay those of ``optimizer``."""
    slots = {int(index): cloned(slot) for index, slot in state.items()}
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
