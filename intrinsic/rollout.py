"""What the bonuses see of one generation batch: texts, verdicts, groups and the shared features."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from common.thinking import THINKING

NO_ANSWER = "no_answer"  # verdict of a completion in which no answer was found
KINDS = ("right", "wrong_answer", "no_answer")  # what a verdict amounts to, by `Rollout.kinds`
VALID = ("correct", "wrong", "wrong_value")  # verdicts of answers that obey the task's rules, whatever their value


def reasoning_text(completion: str) -> str:
    """The text between the reasoning tags (an opening tag may sit in the prompt), or the whole completion.

    It goes from the first opening tag to the next closing one, of either kind; linear in the text.
    """
    _, start = _first_tag(completion, [tag for tag, _ in THINKING], 0)
    end, _ = _first_tag(completion, [tag for _, tag in THINKING], start)
    if end < 0:  # no opened thinking was closed, so that a closing tag ends what the prompt opened
        start, (end, _) = 0, _first_tag(completion, [tag for _, tag in THINKING], 0)
    return (completion if end < 0 else completion[start:end]).strip()


def _first_tag(text: str, tags: list[str], position: int) -> tuple[int, int]:
    """(start, end) of the first of ``tags`` from ``position`` on; (-1, 0) where there is none."""
    return min(((at, at + len(tag)) for tag in tags if (at := text.find(tag, position)) >= 0), default=(-1, 0))


def text_id(text: str) -> str:
    """A short stable identity of a text; equal texts, and only they, are the same memory entry."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Rollout:
    """One generation batch of B completions in groups of G, gathered over all processes.

    Attributes:
        questions: B texts that name the problem of each completion (last user message, or the whole prompt string).
        completions: B decoded completions.
        correct: (B,) float32, 1.0 where the verdict is right, else 0.0; NaN where there are no verdicts.
        rewards: (B,) float32, weighted sum of the extrinsic reward columns.
        num_generations: G; completions of one prompt are adjacent.
        answers: B canonical texts of the final answers, equal for equal answers; None where none could be read, or
            where the task tells none.
        approaches: B texts that name the way to the answer, equal for equal ways, in the task's own normal form; None
            where none could be read, or where the task has no such form.
        verdicts: B words on the answers as the task's reward logs them ("correct", "wrong_value", "no_answer", ...);
            "" where the task tells none.
        step, max_steps: optimiser step now and at the end of training.
        completion_mask: (B, T) bool, true on completion tokens up to and including EOS; None without tokens.
        completion_ids: (B, T) token ids, right padded; None without tokens.
        truncated: (B,) bool, true where the completion was cut off at the length limit; None without tokens.
        prompt_ids, prompt_mask: (B, P) token ids, left padded, and bool mask; None without tokens.
        vocab_size: number of token ids the policy's embedding has; 0 without tokens.
        features: tensors of the shared feature pass by name, only those some bonus `needs`:
            "hidden" (B, T, H) final-norm output at the position that predicts each token, in the type that the policy
            computes in, "mean_hidden" (B, H) its mean over the completion's tokens, "logps" (B, T), "self_certainty"
            (B, T), "entropy" (B, T), and of the policy before training "frozen_hidden" (B, T, H),
            "frozen_mean_hidden" (B, H) and "frozen_self_certainty" (B, T). For a mean alone ask for the mean: the
            states of all tokens are thousands of times as large.
        decode: token id lists -> texts; None without tokens.
        keys: B texts whose vectors say which problems are alike, for memories; by default ``questions``.
        encode: shared text encoder, list of n texts -> (n, d) float32 on the rollout's device.
    """

    questions: list[str]
    completions: list[str]
    correct: Tensor
    rewards: Tensor
    num_generations: int
    answers: list[str | None] = field(default_factory=list)
    approaches: list[str | None] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    step: int = 0
    max_steps: int = 1
    completion_mask: Tensor | None = None
    completion_ids: Tensor | None = None
    truncated: Tensor | None = None
    prompt_ids: Tensor | None = None
    prompt_mask: Tensor | None = None
    vocab_size: int = 0
    features: dict[str, Tensor] = field(default_factory=dict)
    encode: Callable[[list[str]], Tensor] | None = None
    decode: Callable[[list[list[int]]], list[str]] | None = None
    keys: list[str] = field(default_factory=list)
    _vectors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.answers = self.answers or [None] * len(self.completions)
        self.approaches = self.approaches or [None] * len(self.completions)
        self.verdicts = self.verdicts or [""] * len(self.completions)
        self.keys = self.keys or self.questions

    def __len__(self) -> int:
        return len(self.completions)

    def without_states(self) -> "Rollout":
        """This rollout without the hidden states of single tokens, its one large part."""
        return replace(self, features={k: value for k, value in self.features.items() if value.dim() < 3})

    @property
    def device(self) -> torch.device:
        return self.correct.device

    @property
    def valid(self) -> Tensor:
        """(B,) bool: answers that obey the task's rules, whatever their value (Countdown: each given number once)."""
        return torch.tensor([verdict in VALID for verdict in self.verdicts], device=self.device)

    @property
    def kinds(self) -> Tensor:
        """(B,) long, places in `KINDS`: right, wrong with an answer, or without one; where the task has no words for
        verdicts, what is not right counts as a wrong answer. -1 where it is not known what is right."""
        silent = torch.tensor([verdict == NO_ANSWER for verdict in self.verdicts], device=self.device)
        kinds = torch.where(self.correct > 0.5, 0, 1 + silent.long())
        return torch.where(self.correct.isnan(), -1, kinds)

    @property
    def reasonings(self) -> list[str]:
        """B texts inside the reasoning tags, the part of a completion that Memory-R stores."""
        return [reasoning_text(text) for text in self.completions]

    def embed(self, texts: list[str]) -> Tensor:
        """Encode ``texts`` to (n, d); each distinct text once per rollout, whatever the number of bonuses."""
        if self.encode is None:
            raise ValueError("this rollout has no text encoder; list 'text_embedding' in the bonus's `needs`")
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.encode(new).to(self.device), strict=True))
        return torch.stack([self._vectors[text] for text in texts])
