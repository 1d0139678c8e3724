"""Checks of conversations against a policy's chat template, before anything is trained or sampled."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from policy.chat import TEMPLATE_ERRORS, joins_system_turns, render
from policy.load import EMBEDDED_FOLDERS

_PLAIN_PROMPTS = "a prompt that needs none: --prompt_type=plain (questions) or --prompt_style=base (Countdown, iGSM)"
_PLAIN_TRACES = "prompts and completions that are texts"


def check_chat_template(
    prompt: str | list[dict], tokenizer: PreTrainedTokenizerBase, model_name: str, instead: str = _PLAIN_PROMPTS
) -> None:
    """Raise `UserError` when ``prompt`` is a conversation and the tokenizer cannot render it, or not its question.

    Prints where its system text goes if that is not into a turn of its own. That of an embedded policy, and of those
    trained from one, which keep its template, goes nowhere, as it was trained.

    Args:
        instead: what needs no chat template, for the error.
    """
    if isinstance(prompt, str):
        return
    if tokenizer.chat_template is None:
        raise UserError(f"--model_name={model_name!r} has no chat template; use an instruct model, or {instead}.")
    try:
        text = render(prompt, tokenizer)
    except TEMPLATE_ERRORS as error:
        raise UserError(
            f"the chat template of --model_name={model_name!r} refuses the prompt's turns ({error}); use {instead}."
        ) from error
    if prompt[-1]["content"].strip() not in text:
        raise UserError(
            f"the chat template of --model_name={model_name!r} leaves out the text of the last turn; use {instead}."
        )
    if prompt[0]["role"] != "system" or _is_of_embedded(tokenizer.chat_template):
        return
    if joins_system_turns(tokenizer):
        print(f"the chat template of {model_name} takes no system turn: its text goes before the first user turn")
    elif prompt[0]["content"].strip() not in text:
        print(f"the chat template of {model_name} leaves the system text out: the policy is not told what it asks for")


def _is_of_embedded(template: str | dict[str, str]) -> bool:
    """Whether a chat template is that of an embedded policy, apart from settings in front (`take_template_kwargs`)."""
    own = [(folder / "chat_template.jinja").read_text(encoding="utf-8") for folder in EMBEDDED_FOLDERS.values()]
    return isinstance(template, str) and template.endswith(tuple(own))


def check_conversations(rows: Iterable[dict], tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
    """`check_chat_template` on the first prompt; raises `UserError` for the first row whose turns cannot be rendered.

    ``rows``: columns prompt and completion, both conversations, or texts, which need no template.
    """
    for index, row in enumerate(rows):
        if isinstance(row["prompt"], str):
            return
        if index == 0:
            check_chat_template(row["prompt"], tokenizer, model_name, _PLAIN_TRACES)
        try:
            tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        except TEMPLATE_ERRORS as error:
            raise UserError(
                f"row {index}: the chat template of --model_name={model_name!r} refuses its turns ({error}); mend or "
                f"remove the row, or give {_PLAIN_TRACES}."
            ) from error
