"""From a prompt, conversation or plain text, to the text that a policy reads."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from common.thinking import opened_thinking

# What a chat template raises on turns that it does not take: an exception of its own, or one of what it computes with.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
# Before a chat template: the system text becomes the beginning of the first user turn.
_JOINING = (
    "{%- if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' -%}"
    r"{%- set joined = messages[0]['content'] ~ '\n\n' ~ messages[1]['content'] -%}"
    "{%- set messages = [{'role': 'user', 'content': joined}] + messages[2:] -%}"
    "{%- endif -%}"
)
_SYSTEM_AND_USER = [{"role": "system", "content": "system text"}, {"role": "user", "content": "user text"}]


def render(prompt: str | list[dict], tokenizer: PreTrainedTokenizerBase, **settings) -> str:
    """``prompt`` as the policy reads it: a text as it is, a conversation through the chat template.

    ``settings`` are further names for the template, as in TRL's ``chat_template_kwargs``.
    """
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **settings)


def with_prefill(
    prompt: str | list[dict], completion: str | list[dict], tokenizer: PreTrainedTokenizerBase, **settings
) -> str | list[dict]:
    """``completion`` as scorers read it: behind the opening thinking tag that its rendered prompt may end in."""
    prefill = opened_thinking(render(prompt, tokenizer, **settings))
    if not prefill:
        return completion
    if isinstance(completion, str):
        return prefill + completion
    first, *others = completion
    return [first | {"content": prefill + (first["content"] or "")}, *others]


def take_system_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a chat template that refuses a system turn put the system text before the first user turn instead.

    Prompts stay as they are, with a system and a user turn: what is joined is the text that the policy reads. The
    template is saved with the tokenizer, so a trained policy is asked later as it was in training.
    """
    template = tokenizer.chat_template
    if template is None or _renders(_SYSTEM_AND_USER, tokenizer):
        return
    if isinstance(template, dict):
        tokenizer.chat_template = {name: _JOINING + text for name, text in template.items()}
    else:
        tokenizer.chat_template = _JOINING + template
    if not _renders(_SYSTEM_AND_USER, tokenizer):
        tokenizer.chat_template = template


def _renders(turns: list[dict], tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        render(turns, tokenizer)
    except TEMPLATE_ERRORS:
        return False
    return True


def joins_system_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template is one that `take_system_turns` has changed."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template]
    return any(text.startswith(_JOINING) for text in texts)


def message_text(prompt_or_completion: str | list[dict], role: str) -> str:
    """Text of a string, or of the last message of ``role`` in a conversation."""
    if isinstance(prompt_or_completion, str):
        return prompt_or_completion
    return next(message["content"] for message in reversed(prompt_or_completion) if message["role"] == role)
