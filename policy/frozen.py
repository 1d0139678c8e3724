"""The policy as it was before training, for features that must not move with it, at no lasting cost of the device.

Where the run holds these weights anyway (LoRA, KL penalty) they are used. Otherwise a copy waits in main memory, its
linear layers in the type that passes cast them to from the start, and is on the device only while bonuses are scored,
when no gradients and no activations of the backward pass are there: the peak of a step is that of one without bonuses.
"""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate.utils import is_peft_model
from peft import PeftModel
from torch import Tensor, nn
from trl.trainer.utils import add_fused_lm_head, use_adapter

from policy.features import FROZEN_FEATURES, MEAN_HIDDEN, FeaturePass
from policy.shared_prompts import share_prompts, shares_prompts

KEPT = "ref"  # what TRL calls the copy of an adapter as it was before training


class FrozenPolicy:
    """Features of completions under the initial policy.

    With a new adapter it is the policy with its adapter off, with a KL penalty TRL's reference model, so neither costs
    weights. A policy that comes with an adapter keeps a copy of that one, under TRL's name for it; TRL makes it where
    there is a KL penalty. Otherwise it is a copy, to be made before TRL patches the policy.

    Args:
        model: the policy, not yet in the trainer.
        has_reference: whether the trainer will hold a reference model (beta > 0).
        uses_adapter: whether the trainer will put an adapter on the policy, or it has one.
        cast: the type that passes cast linear layers to, `policy.precision.Precision.cast`.
    """

    def __init__(self, model, has_reference: bool, uses_adapter: bool, cast: torch.dtype = torch.float32):
        self._copy = None if has_reference or uses_adapter else frozen_copy(model, cast)
        if is_peft_model(model) and not has_reference:
            keep_adapter(model)

    def attach(self, policy, reference, temperature: float, batch_size: int, device, autocast) -> None:
        """Take from the trainer: its unwrapped policy, its reference model or None, its device and autocast context."""
        self._policy, self._device, self._autocast = policy, torch.device(device), autocast
        if self._copy is not None:
            add_fused_lm_head(self._copy, temperature=temperature)
            if shares_prompts(policy):
                share_prompts(self._copy)
            for module in self._copy.modules():
                for name, buffer in module.named_buffers(recurse=False):
                    setattr(module, name, buffer.to(self._device))
        frozen = self._copy or reference or policy
        self._pass = FeaturePass(frozen, temperature, batch_size)
        self._kept: dict[str, Tensor] | None = None

    def logps(self, input_ids: Tensor, attention_mask: Tensor, length: int, names: Collection[str]) -> Tensor:
        """Log-probabilities (B, length) that TRL asks the reference model for; keeps the features in ``names``.

        So the pass that the KL penalty takes anyway serves the bonuses too, at the next call of this object.
        """
        ids, mask = input_ids, attention_mask.bool()
        parts = ids[:, :-length], mask[:, :-length], ids[:, -length:], mask[:, -length:]
        wanted = {FROZEN_FEATURES[name] for name in names} | {"logps"}
        self._kept = self._pass(*parts, autocast=self._autocast, names=wanted)
        return self._kept["logps"]

    def __call__(self, tokens: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
        """The features of `FROZEN_FEATURES` in ``names``; those that `logps` kept, where there are any.

        TRL may have padded the completions further than ``tokens``; features end where ``tokens`` do.
        """
        features, self._kept = self._kept, None
        if features is None:
            with self._present():
                features = self._pass(
                    **tokens, autocast=self._autocast, names={FROZEN_FEATURES[name] for name in names}
                )
        width = tokens["completion_ids"].size(1)
        cut = {name: value if name == MEAN_HIDDEN else value[:, :width] for name, value in features.items()}
        return {name: cut[FROZEN_FEATURES[name]] for name in names}

    def _present(self):
        """While open, the pass runs on the initial weights, on the device."""
        if self._copy is not None:
            return weights_on(self._copy, self._device)
        if not is_peft_model(self._pass.model) or self._pass.model is not self._policy:
            return nullcontext()
        return use_adapter(self._policy, KEPT if KEPT in self._policy.peft_config else None)


def keep_adapter(model: PeftModel) -> None:
    """Copy the active adapter of ``model`` under the name `KEPT`; the active one stays the one that is trained."""
    active = model.active_adapter
    if KEPT in model.peft_config:  # that of an earlier trainer
        model.delete_adapter(KEPT)
    model.add_adapter(KEPT, model.peft_config[active])
    for name, parameter in list(model.named_parameters()):
        parts = name.split(".")  # the adapter stands within the name of a matrix, at the end of that of an embedding
        if active in parts:
            kept = ".".join(KEPT if part == active else part for part in parts)
            model.get_parameter(kept).data.copy_(parameter.data)


def frozen_copy(model, cast: torch.dtype):
    """A copy of ``model`` in main memory, its inner linear layers in ``cast`` unless that is float32."""
    copied = {}
    if cast is not torch.float32:
        weights = [weight for layer in inner_linear_layers(model) for weight in layer.parameters()]
        # What deepcopy finds here under the id of a weight it takes for its copy.
        copied = {id(w): nn.Parameter(w.detach().to("cpu", cast, copy=True), requires_grad=False) for w in weights}
    return copy.deepcopy(model, copied).cpu().eval().requires_grad_(False)


def inner_linear_layers(model) -> Iterator[nn.Linear]:
    """The linear layers of ``model``, without its output head, whose weights may be those of the embedding."""
    head = model.get_output_embeddings()
    return (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)


@contextmanager
def weights_on(model, device: torch.device) -> Iterator[None]:
    """The weights of ``model`` on ``device`` while open; nothing is copied back, as nothing changes them."""
    at_home = {parameter: parameter.data for parameter in model.parameters()}
    for parameter in at_home:
        parameter.data = parameter.data.to(device)
    try:
        yield
    finally:
        for parameter, data in at_home.items():
            parameter.data = data
