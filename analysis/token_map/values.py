"""One number per token of finished completions: from the feature pass over a checkpoint, or from a bonus."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import add_fused_lm_head

from analysis.checkpoint import known_flags, saved_states
from analysis.completions import Completion
from common.errors import UserError
from intrinsic import bonus_class, build_bonus, parse_names
from intrinsic.base import Bonus
from intrinsic.options import IntrinsicOptions
from intrinsic.rollout import Rollout
from policy.chat import render
from policy.end_tokens import reply_end_id
from policy.features import FROZEN_FEATURES, TOKEN_FEATURES, FeaturePass
from policy.load import load_policy
from policy.padding import pad_tokens

BATCH_SIZE = 8


@dataclass(frozen=True)
class TokenBatch:
    """Completions as tokens.

    Attributes:
        completions: what they were made from.
        pieces: per completion the text of each token; together they are its text. A token that holds a later part of
            a character alone, or the end token, has an empty or a special piece.
        tensors: the prompt and completion ids and masks that `policy.features.FeaturePass` takes.
    """

    completions: Sequence[Completion]
    pieces: list[list[str]]
    tensors: dict[str, Tensor]


def tokenize(
    completions: Sequence[Completion], tokenizer: PreTrainedTokenizerBase, longest: int | None, device: torch.device
) -> TokenBatch:
    """Tokens of prompts, rendered as in training, and of completions, with their end token where it was sampled.

    ``longest``: limit of the run's completions, which tells cut-off ones where their file does not. Raises
    `UserError` when the tokenizer cannot say which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} has no offsets; give a model with a fast tokenizer.")
    prompts, ids, pieces = [], [], []
    for completion in completions:
        prompt, is_text = render(completion.prompt, tokenizer), isinstance(completion.prompt, str)
        # As in training: a text gets the tokenizer's own special tokens, a rendered conversation has them.
        prompts.append(tokenizer(prompt, add_special_tokens=is_text)["input_ids"])
        encoded = tokenizer(completion.text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, texts = list(encoded["input_ids"]), cut_pieces(completion.text, encoded["offset_mapping"])
        ended = completion.ended if completion.ended is not None else longest is None or len(tokens) < longest
        if ended:
            end = reply_end_id(completion.prompt, tokenizer)
            tokens, texts = [*tokens, end], [*texts, tokenizer.convert_ids_to_tokens(end)]
        ids.append(tokens)
        pieces.append(texts)
    prompt_ids, prompt_mask = pad_tokens(prompts, "left", tokenizer.pad_token_id, device)
    completion_ids, completion_mask = pad_tokens(ids, "right", tokenizer.pad_token_id, device)
    return TokenBatch(
        completions,
        pieces,
        {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
        },
    )


def cut_pieces(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """``text`` cut at the ends of its tokens; what no token covers goes with the next one, or the last."""
    ends = [end for _, end in offsets]
    if ends:
        ends[-1] = len(text)
    cuts = [0, *ends]
    for index in range(1, len(cuts)):
        cuts[index] = max(cuts[index], cuts[index - 1])
    return [text[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]


class TokenFeatures:
    """The features of a batch under a checkpoint and, where asked for, under the policy the run began with.

    Args:
        policy: the checkpoint.
        initial: model name of the policy before training, None where no record of the run says it.
        temperature: sampling temperature of the run.
    """

    def __init__(self, policy: PreTrainedModel, initial: str | None, temperature: float):
        self.policy, self._initial, self._temperature = policy, initial, temperature
        add_fused_lm_head(policy, temperature=temperature, outputs=("log_probs", "entropy"))

    def __call__(self, batch: TokenBatch, names: frozenset[str]) -> dict[str, Tensor]:
        """Features by name, (B, T) or (B, T, H), see `intrinsic.rollout.Rollout`.

        Raises `UserError` when they ask for the policy before training and nobody knows it.
        """
        found = {}
        if own := names & TOKEN_FEATURES:
            found = self._run(self.policy, batch, own)
        if frozen := names & FROZEN_FEATURES.keys():
            if self._initial is None:
                raise UserError("the policy before training stands in no run.json; give --run a folder that has one.")
            model = load_policy(self._initial).eval().to(self.policy.device)
            add_fused_lm_head(model, temperature=self._temperature)
            features = self._run(model, batch, {FROZEN_FEATURES[name] for name in frozen})
            found |= {name: features[FROZEN_FEATURES[name]] for name in frozen}
        return found

    def _run(self, model: PreTrainedModel, batch: TokenBatch, names) -> dict[str, Tensor]:
        return FeaturePass(model, self._temperature, BATCH_SIZE)(**batch.tensors, autocast=nullcontext, names=names)


def load_token_bonus(name: str, checkpoint: str, saved: dict[str, Any]) -> Bonus:
    """The bonus ``name`` with its state from a checkpoint folder.

    ``saved``: the intrinsic flags of the run; flags that this version does not know are left out.

    Raises:
        UserError: unknown bonus, one that has no value per token, or no state of it in ``checkpoint``.
    """
    per_token = bonus_class(*parse_names(name)).per_token_flags
    changed = {"use_ir": name, "ir_weight": "1.0", **per_token}
    options = IntrinsicOptions(**(known_flags(saved) | changed))
    bonus = build_bonus(*options.bonus_names, options)
    if bonus.placement != "token":
        raise UserError(f"--bonus={name!r} has one value per completion, not per token; use --quantity for this run.")
    states = saved_states(checkpoint)
    if bonus.name not in states:
        raise UserError(
            f"{checkpoint!r} holds the state of {', '.join(states) or 'no bonus'}, not of --bonus={name!r}."
        )
    bonus.load_state_dict(states[bonus.name])
    return bonus


def bonus_values(
    bonus: Bonus, batch: TokenBatch, features: TokenFeatures, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """The bonus of each token, (B, T); the completions count as one group."""
    tensors = batch.tensors
    correct = torch.tensor([float(item.correct) for item in batch.completions], device=features.policy.device)
    rollout = Rollout(
        questions=[item.question for item in batch.completions],
        completions=[item.text for item in batch.completions],
        correct=correct,
        rewards=correct,
        num_generations=len(batch.completions),
        vocab_size=features.policy.get_input_embeddings().num_embeddings,
        features=features(batch, bonus.needs),
        decode=tokenizer.batch_decode,
        **tensors,
    )
    return bonus.score(rollout)
