"""i-MENTOR, now IMAGINE (arXiv 2505.17621): GRPO that also pays wrong answers for how unexpected their text is.

Plain GRPO treats all wrong answers of a group alike; here the error with which a trained network predicts a random one
(random network distillation, Burda et al., arXiv 1810.12894) tells the new from the often seen, and is added to the
finished advantages of wrong answers, fading with time.

``--rnd_mode=reference`` is the authors' program: token ids of prompt and response in a fixed layout, an embedding that
is trained and feeds the target too, minimum and maximum of the batch. ``fixed`` (default, ours) takes the mean hidden
state of the policy before training, so that the novelty of a text neither moves with the policy nor with its length,
and a target that stays as it is.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_number
from intrinsic.parts.distillation import HiddenDistillation, TokenDistillation
from intrinsic.parts.error_conditioned import Conditioning, ErrorConditionedBonus
from intrinsic.rollout import Rollout


def fixed_layout(rollout: Rollout, prompt_length: int, response_length: int) -> Tensor:
    """Token ids (B, P + R): the last P prompt tokens left padded, then the response right padded; padding is id 0.

    Raises `UserError` for a response of more than R tokens.
    """
    prompts = rollout.prompt_ids * rollout.prompt_mask
    responses = rollout.completion_ids * rollout.completion_mask
    longest = int(rollout.completion_mask.sum(dim=1).max()) if len(rollout) else 0
    if longest > response_length:
        raise UserError(
            f"a completion of {longest} tokens does not fit into --rnd_response_length={response_length}; raise it to "
            "--L at least."
        )
    prompts = torch.nn.functional.pad(prompts, (max(0, prompt_length - prompts.size(1)), 0))[:, -prompt_length:]
    responses = torch.nn.functional.pad(responses, (0, max(0, response_length - responses.size(1))))
    return torch.cat([prompts, responses[:, :response_length]], dim=1)


class RandomNetworkDistillation(ErrorConditionedBonus):
    """``--use_ir=rnd``: prediction error of each wrong answer, scaled to [0, 0.5], times alpha / gamma_t.

    Args:
        conditioning: scale, gate and decay; its mode chooses the networks too.
        lr, weight_decay: of AdamW.
        width: fixed: hidden and output width of the networks.
        prompt_length, response_length: reference: P and R, tokens.
        seed: of the weights.

    Raises `UserError` for a value out of range.
    """

    name = "rnd"

    def __init__(
        self,
        conditioning: Conditioning | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        width: int = 512,
        prompt_length: int = 256,
        response_length: int = 1024,
        seed: int = 0,
    ):
        super().__init__(conditioning)
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            check_number(f"rnd_{name}", value, least=0)
        for name, length in (("width", width), ("prompt_length", prompt_length), ("response_length", response_length)):
            check_number(f"rnd_{name}", length, least=1)
        check_number("rnd_seed", seed, least=0)
        self.lr, self.weight_decay, self.width, self.seed = lr, weight_decay, width, seed
        self.prompt_length, self.response_length = prompt_length, response_length
        self.is_reference = self.conditioning.mode == "reference"
        self.needs = frozenset() if self.is_reference else frozenset({"frozen_mean_hidden"})
        self.networks: TokenDistillation | HiddenDistillation | None = None

    @classmethod
    def from_options(cls, options) -> "RandomNetworkDistillation":
        return cls(
            conditioning=Conditioning.from_options(options),
            lr=options.rnd_lr,
            weight_decay=options.rnd_weight_decay,
            width=options.rnd_width,
            prompt_length=options.rnd_prompt_length,
            response_length=options.rnd_response_length,
            seed=options.rnd_seed,
        )

    def check(self, num_generations: int, max_completion_length: int) -> None:
        if self.is_reference and max_completion_length > self.response_length:
            raise UserError(
                f"--rnd_response_length={self.response_length} is shorter than completions may be "
                f"(--L={max_completion_length}); raise it to --L."
            )

    def novelty(self, rollout: Rollout) -> Tensor:
        """Prediction error (B,) before this batch is learnt; NaN where a hidden state is not finite.

        In fixed mode equal for all until something was learnt, as a random predictor's errors mean nothing; in
        reference mode 0 for a batch of one. Raises `UserError` for a rollout without tokens or hidden states.
        """
        inputs = self._inputs(rollout)
        with torch.autocast(inputs.device.type, enabled=False):
            if self.is_reference:
                return self._on(inputs.device, self._sizes(rollout, inputs)).errors(inputs)
            finite = inputs.isfinite().all(dim=1)
            errors = torch.zeros(len(inputs), device=inputs.device).masked_fill(~finite, torch.nan)
            if self.networks is not None and finite.any():
                errors[finite] = self._on(inputs.device, self._sizes(rollout, inputs)).errors(inputs[finite])
            return errors

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """One step of the predictor on all completions, right and wrong; reference: also "target_drift"."""
        inputs = self._inputs(rollout)
        inputs = inputs if self.is_reference else inputs[self._learnable(inputs, rollout)]
        if not len(inputs):
            return {}
        self.networks = self._on(inputs.device, self._sizes(rollout, inputs))
        with torch.autocast(inputs.device.type, enabled=False):
            return self.networks.learn(inputs)

    def _learnable(self, vectors: Tensor, rollout: Rollout) -> Tensor:
        return vectors.isfinite().all(dim=1) & rollout.completion_mask.any(dim=1)

    def _inputs(self, rollout: Rollout) -> Tensor:
        """Token ids (B, P + R) or pooled hidden states (B, H)."""
        if self.is_reference:
            if rollout.prompt_ids is None or rollout.completion_ids is None:
                raise UserError("--use_ir=rnd needs token ids and this run offers none; take rnd out of --use_ir.")
            return fixed_layout(rollout, self.prompt_length, self.response_length)
        mean = rollout.features.get("frozen_mean_hidden")
        if mean is None or rollout.completion_mask is None:
            raise UserError(
                "--use_ir=rnd needs the mean hidden state of each response under the initial policy "
                f"('frozen_mean_hidden'), and this run offers {sorted(rollout.features) or 'none'}; use "
                "--rnd_mode=reference."
            )
        return mean.float()

    def _sizes(self, rollout: Rollout, inputs: Tensor) -> list[int]:
        return [rollout.vocab_size, inputs.size(1)] if self.is_reference else [inputs.size(1)]

    def _new_networks(self, sizes: list[int], device) -> TokenDistillation | HiddenDistillation:
        if self.is_reference:
            vocab_size, length = sizes
            return TokenDistillation(vocab_size, length, device, self.lr, self.weight_decay, self.seed)
        (features,) = sizes
        return HiddenDistillation(features, device, self.width, self.lr, self.weight_decay, self.seed)

    def _on(self, device: torch.device, sizes: list[int]) -> TokenDistillation | HiddenDistillation:
        """The networks, moved to ``device`` if a checkpoint put them elsewhere; new ones before the first `learn`."""
        if self.networks is None:
            return self._new_networks(sizes, device)
        if self.networks.device != device:
            state, sizes = self.networks.state_dict(), self.networks.sizes
            self.networks = self._new_networks(sizes, device)
            self.networks.load_state_dict(state)
        return self.networks

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return (
            state
            if self.networks is None
            else state
            | {
                "sizes": self.networks.sizes,
                "networks": self.networks.state_dict(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.networks = None
        if "networks" in state:
            self.networks = self._new_networks(state["sizes"], torch.device("cpu"))
            self.networks.load_state_dict(state["networks"])

    def identity(self) -> dict[str, Any]:
        settings = {"lr": self.lr, "weight_decay": self.weight_decay, "seed": self.seed}
        if self.is_reference:
            return super().identity() | settings | {"lengths": [self.prompt_length, self.response_length]}
        return super().identity() | settings | {"width": self.width}
