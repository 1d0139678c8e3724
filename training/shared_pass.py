"""One forward pass of the policy per generation batch: for the bonuses' features and for the old log-probabilities.

TRL takes old log-probabilities where a generation serves several updates, and for the importance correction of vLLM.
Without a bonus that reads token features its own pass gives them, with one the feature pass does, so every run has
them where plain GRPO has them, and nowhere else: a bonus changes the advantages alone. Where none are taken the ratio
of the loss is exactly 1.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from policy import shared_prompts
from policy.features import FeaturePass


def takes_old_logps(args) -> bool:
    """Whether TRL 1.16 passes each generation batch through the policy before the update, under these settings."""
    every = args.steps_per_generation * args.num_iterations
    return args.gradient_accumulation_steps % every != 0 or (args.use_vllm and args.vllm_importance_sampling_correction)


def reason_for_rows(policy, args, adapter_dropout: float = 0.0) -> str | None:
    """Why passes over the policy take a row for each completion under these settings; None where prompts are shared.

    ``adapter_dropout``: see `policy.shared_prompts.reason_for_rows`.
    """
    if (
        args.world_size > 1
        or getattr(args, "deepspeed_plugin", None)
        or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    ):
        return "a launch for several processes"
    if args.torch_compile:
        return "compilation"
    return shared_prompts.reason_for_rows(policy, adapter_dropout)


class SharedPass:
    """The feature pass over a generation batch, taken once, whoever asks first.

    Args:
        feature_pass: the policy's.
        names: the features that the bonuses read from a pass; none where generation gives them all.
        serves_logps: whether TRL asks for old log-probabilities (`takes_old_logps`).
        autocast: the context manager factory under which the policy runs.
    """

    def __init__(
        self,
        feature_pass: FeaturePass,
        names: frozenset[str],
        serves_logps: bool,
        autocast: Callable[[], AbstractContextManager],
    ):
        self._pass, self._autocast = feature_pass, autocast
        self.names = names
        self._serves_logps = serves_logps and bool(names)
        self._kept: dict[str, Tensor] | None = None
        self.is_awaited = False

    def begin(self, training: bool) -> None:
        """A batch has been generated; the features of the last one are forgotten.

        In ``training`` the first pass that TRL asks for is that for the old log-probabilities, if it takes some.
        """
        self._kept = None
        self.is_awaited = training and self._serves_logps

    def logps(self, tokens: dict[str, Tensor], width: int) -> Tensor:
        """Old log-probabilities (B, width) of the completions in ``tokens``, which `pad_to_multiple_of` may widen."""
        self.is_awaited = False
        self._kept = self._pass(**tokens, autocast=self._autocast, names=self.names | {"logps"})
        logps = self._kept["logps"]
        return torch.nn.functional.pad(logps, (0, width - logps.size(1)))

    def features(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features in ``names`` of the completions in ``tokens``: those that `logps` kept, where it was asked."""
        kept, self._kept = self._kept, None
        return kept or self._pass(**tokens, autocast=self._autocast, names=self.names)
