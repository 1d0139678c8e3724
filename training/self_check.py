"""The check before training: does an ideal answer get what the rewards can pay?

Where prompt, chat template and rewards disagree on where the answer stands, every answer is wrong, and nothing in the
log tells it from a hard task.
"""

import math
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase, TrainerState
from trl import GRPOConfig

from common.errors import UserError
from common.thinking import THINKING, opened_thinking
from policy.chat import render, with_prefill
from rewards.format import completion_text

CORRECTNESS = "correctness"


class Scoring(NamedTuple):
    """The reward columns of a run, with a worked example of its task.

    Attributes:
        columns, weights: as for `Run.build_trainer`; what a column's attribute ``full`` says, an ideal answer gets.
        row: a problem as the data set has it, with its prompt.
        answer: the right answer to ``row``, worked, in the shape that the prompt asks for.
        asked: the flag by which prompts are asked for, printable, such as "--prompt_type=think".
    """

    columns: Sequence[Callable]
    weights: Sequence[float]
    row: dict
    answer: str
    asked: str


def check_scoring(scoring: Scoring, tokenizer: PreTrainedTokenizerBase, config: GRPOConfig) -> None:
    """Raise `UserError` unless the ideal answer of ``scoring`` is paid in full, as the policy would write it.

    Correctness has to pay whatever its weight, since accuracy, ``best/`` and the bonuses read it; other columns where
    they have a weight. Loads no model.
    """
    row, settings = scoring.row, config.chat_template_kwargs or {}
    prompt = render(row["prompt"], tokenizer, **settings)
    answer = without_special_tokens(continued(scoring.answer, opened_thinking(prompt)), tokenizer)
    completion = answer if isinstance(row["prompt"], str) else [{"role": "assistant", "content": answer}]
    whole = with_prefill(row["prompt"], completion, tokenizer, **settings)
    columns = {name: [value] for name, value in row.items() if name != "prompt"}
    for column, weight in zip(scoring.columns, scoring.weights, strict=True):
        name, full = column.__name__, getattr(column, "full", None)
        if not hasattr(column, "full"):
            _try_own(column, prompts=[row["prompt"]], completions=[whole], completion_ids=[[]], **columns)
        if full is None or (name != CORRECTNESS and not weight):
            continue
        (paid,) = column(prompts=[row["prompt"]], completions=[whole], completion_ids=[[]], **columns)
        if paid < full:
            tag = opened_thinking(prompt).strip()
            advice = (
                f"the chat template opens {tag}, so use --prompt_type=think or qwen25-math-cot"
                if tag
                else "use another prompt, or a policy whose tokenizer keeps its tags"
            )
            raise UserError(
                f"an ideal answer under {scoring.asked} gets {paid:g} instead of {full:g} from the reward {name}, "
                f"read as {completion_text(whole)!r}; {advice}."
            )


def _try_own(function: Callable, **arguments) -> None:
    """Raise `UserError` unless a reward function of the user's own pays a number, or None, for one completion."""
    if iscoroutinefunction(function):
        return
    logs = {"log_extra": lambda *_: None, "log_metric": lambda *_: None, "trainer_state": TrainerState()}
    try:
        paid = function(**arguments, **logs)
    except Exception as error:  # whatever its author did
        raise UserError(
            f"the reward function {function.__name__!r} fails on one completion ({type(error).__name__}: {error}); it "
            "takes prompts, completions, the columns of the data and **kwargs."
        ) from error
    if not _is_one_number(paid):
        raise UserError(
            f"the reward function {function.__name__!r} gives {paid!r} for one completion; it has to give a list with "
            "a number, or None, for each."
        )


def _is_one_number(paid) -> bool:
    if isinstance(paid, str | dict):
        return False
    try:
        (one,) = paid
        return one is None or math.isfinite(one)
    except (TypeError, ValueError):
        return False


def continued(answer: str, prefill: str) -> str:
    """``answer`` as it goes on from a prompt that has already opened the thinking with ``prefill``.

    An answer that begins with the same tag goes on behind what ``prefill`` has of it, tag and line break or tag alone;
    one without thinking of its own first ends what was opened, before its last line.
    """
    tag = prefill.strip()
    if not tag:
        return answer
    if answer.startswith(tag):
        return answer.removeprefix(tag).removeprefix(prefill.removeprefix(tag))
    if any(opening in answer for opening, _ in THINKING):
        return answer
    steps, _, last = answer.rpartition("\n")
    return f"{steps}\n{dict(THINKING)[tag]}\n{last}"


def without_special_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """``text`` as it is left once written as tokens and decoded: tokens that the tokenizer calls special are gone."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text
