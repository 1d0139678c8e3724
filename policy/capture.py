"""Token features at no extra forward pass: read off while the policy generates.

Every decoding step computes the final-norm output and the logits that the sampled token comes from. Two hooks reduce
them to the few numbers per token that somebody asked for, so (B, T, V) logits never exist, nor (B, T, H) states unless
a bonus needs them.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy.features import MEAN_HIDDEN, TOKEN_FEATURES, Head
from policy.load import base_of
from policy.precision import compute_dtype


@dataclass
class _Stage:
    """What one call of ``generate`` gave.

    Attributes:
        rows: its b rows of the batch.
        start: tokens that these rows had before.
        steps: for each new token its statistics by name, (b,) or, of states that are kept, (b, H).
        state: (b, H) float32, that of the newest token.
        ended: (b,) bool, completions that ended before the newest token.
        total: (b, H) float32, sum of the states of the completions' tokens.
    """

    rows: list[int]
    start: int
    steps: list[dict[str, Tensor]] = field(default_factory=list)
    state: Tensor | None = None
    ended: Tensor | None = None
    total: Tensor | None = None


class GenerationCapture:
    """Features of the tokens that ``model.generate`` samples, for Hugging Face generation, one batch after the other.

    Args:
        model: the unwrapped policy, an adapter on it or not.
        temperature: sampling temperature T; the features are those of softmax(logits / T).
        names: the features of `policy.features.TOKEN_FEATURES` to make; nothing is computed for others.
        end_ids: tokens that end a completion.
    """

    def __init__(
        self,
        model,
        temperature: float,
        names: Collection[str] = TOKEN_FEATURES,
        end_ids: Collection[int] = (),
    ):
        self.model = base_of(model)
        self.temperature = temperature
        self.names = frozenset(names)
        self.end_ids = sorted(end_ids)
        self.head = Head.of(model)
        self._stages: list[_Stage] = []
        self._states: Tensor | None = None

    @contextmanager
    def capturing(self, rows: Sequence[int], start: int = 0) -> Iterator[None]:
        """While open, each forward of the policy adds the distribution of one next token of each of ``rows``.

        ``rows`` are numbers of completions in the batch, which have ``start`` tokens already.
        """
        self._stages.append(_Stage(list(rows), start))
        hooks = [
            self.model.base_model.register_forward_hook(self._keep_states),
            self.model.register_forward_hook(self._keep_statistics, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_states(self, module, args, output) -> None:
        self._states = output[0][:, -1]  # (b, length, H) -> (b, H), a view that is gone when this forward is

    def _keep_statistics(self, module, args, inputs, output) -> None:
        stage, tokens = self._stages[-1], inputs["input_ids"][:, -1]
        states, self._states = self._states, None
        if stage.steps:  # what is read now was drawn from the step before
            self._add_target_logit(stage, tokens)
        step = {}
        if "hidden" in self.names:
            step["hidden"] = states.to(compute_dtype(states), copy=True)
        if "logps" in self.names:
            stage.state = states.to(torch.float32, copy=True)
        if MEAN_HIDDEN in self.names:
            self._add_to_total(stage, states, tokens)
        if self.names & {"logps", "self_certainty", "entropy"}:
            step |= self._statistics(output.logits[:, -1])
        stage.steps.append(step)

    def _statistics(self, logits: Tensor) -> dict[str, Tensor]:
        """What is asked for of the distribution softmax(logits / T), each (b,), from ``logits`` (b, V)."""
        logits = logits.float() if self.temperature == 1.0 else logits.float() / self.temperature
        found = {"logsumexp": logits.logsumexp(dim=-1)}
        if "self_certainty" in self.names:
            found["mean"] = logits.mean(dim=-1)
        if "entropy" in self.names:
            found["entropy"] = expected_surprise(logits, found["logsumexp"])
        return found

    def _add_target_logit(self, stage: _Stage, tokens: Tensor) -> None:
        """Complete the newest step with the logit (b,) of ``tokens`` (b,) that were drawn from it."""
        if "logps" in self.names:
            logits = self.head.logits_of(stage.state[:, None], tokens[:, None], self.model.get_output_embeddings())
            stage.steps[-1]["target_logit"] = logits[:, 0] / self.temperature

    def _add_to_total(self, stage: _Stage, states: Tensor, read: Tensor) -> None:
        """Add ``states`` (b, H), unless the token ``read`` (b,) or one before it ended the completion."""
        if not stage.steps:
            stage.ended = torch.zeros_like(read, dtype=torch.bool)
            stage.total = states.to(torch.float32, copy=True)
            return
        stage.ended |= torch.isin(read, read.new_tensor(self.end_ids))
        stage.total += states.masked_fill(stage.ended[:, None], 0.0)

    def features(self, completion_ids: Tensor, completion_mask: Tensor) -> dict[str, Tensor]:
        """The features that were asked for, of the batch captured last, zero on padding; empties the capture.

        ``completion_ids`` (B, T) are the sampled tokens, right padded, ``completion_mask`` (B, T) bool. What they are
        is said in `policy.features.FeaturePass`.
        """
        stages, self._stages = self._stages, []
        for stage in stages:
            last = min(stage.start + len(stage.steps), completion_ids.size(1)) - 1
            self._add_target_logit(stage, completion_ids[stage.rows, last])
        features = {}
        if MEAN_HIDDEN in self.names:
            features[MEAN_HIDDEN] = _mean_state(stages, completion_mask)
        if self.names - {MEAN_HIDDEN}:
            features |= self._per_token(_joined(stages, *completion_ids.shape), completion_mask)
        return features

    def _per_token(self, joined: dict[str, Tensor], completion_mask: Tensor) -> dict[str, Tensor]:
        """The features (B, T) and (B, T, H) from the statistics in ``joined``."""
        mask, features = completion_mask.float(), {}
        if "logps" in self.names:
            features["logps"] = (joined["target_logit"] - joined["logsumexp"]) * mask
        if "entropy" in self.names:
            features["entropy"] = joined["entropy"] * mask
        if "self_certainty" in self.names:
            uniform = math.log(self.model.get_output_embeddings().weight.size(0))
            features["self_certainty"] = (joined["logsumexp"] - joined["mean"] - uniform) * mask
        if "hidden" in self.names:
            features["hidden"] = joined["hidden"].masked_fill_(~completion_mask[..., None], 0.0)
        return features


def expected_surprise(logits: Tensor, logsumexp: Tensor) -> Tensor:
    """Entropy (b,), in nats, of softmax(``logits``), (b, V), whose log normaliser is ``logsumexp`` (b,)."""
    return logsumexp - (logits * (logits - logsumexp[:, None]).exp()).sum(dim=-1)


def _joined(stages: list[_Stage], size: int, length: int) -> dict[str, Tensor]:
    """Each statistic of the steps as (size, length, ...), 0 where there is nothing; empties the steps."""
    first = stages[0].steps[0]
    joined = {name: value.new_zeros(size, length, *value.shape[1:]) for name, value in first.items()}
    device = next(iter(joined.values())).device
    for stage in stages:
        rows = torch.tensor(stage.rows, device=device)
        # Generation that ran on behind the longest completion leaves steps that belong to no token.
        for position, step in enumerate(stage.steps[: length - stage.start], stage.start):
            for name, whole in joined.items():
                whole[rows, position] = step.pop(name)
    return joined


def _mean_state(stages: list[_Stage], completion_mask: Tensor) -> Tensor:
    """Mean state (B, H) of each completion's tokens, float32."""
    total = stages[0].total.new_zeros(len(completion_mask), stages[0].total.size(1))
    for stage in stages:
        total[stage.rows] += stage.total
    return total / completion_mask.sum(dim=1, keepdim=True).clamp(min=1)
