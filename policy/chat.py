"""From a prompt, conversation or plain text, to the text that a policy reads."""

import inspect
import json
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError
from jinja2.defaults import DEFAULT_NAMESPACE
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
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
    return any(_JOINING in text for text in texts)


def take_template_kwargs(tokenizer: PreTrainedTokenizerBase, kwargs: dict[str, Any] | None) -> None:
    """Let the chat template read ``kwargs`` wherever its caller does not name them; a caller that does still wins.

    One place for all that renders prompts: training, its checks, evaluations, analyses. The template is saved with the
    tokenizer, so a trained policy is asked later as it was in training. Of what the template takes already, ``kwargs``
    win. Raises `UserError` for a name that is not the template's to read, and a value that JSON cannot hold.
    """
    template = tokenizer.chat_template
    if not kwargs or template is None:
        return
    # A line of its own: the template's first line then begins where it did.
    settings = "".join(_setting(name, value, tokenizer) for name, value in kwargs.items()) + "\n"
    if isinstance(template, dict):
        tokenizer.chat_template = {name: _behind(settings, text) for name, text in template.items()}
    else:
        tokenizer.chat_template = _behind(settings, template)


def _behind(settings: str, template: str) -> str:
    return template if template.startswith(settings) else settings + template


def _setting(name: str, value: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """The statement of a template that ``name`` is ``value`` where nobody has said what it is."""
    arguments = inspect.signature(tokenizer.apply_chat_template).parameters
    # Those of the call, of the tokenizer, and Jinja's own functions.
    taken = {"messages", *arguments, *tokenizer.special_tokens_map, *DEFAULT_NAMESPACE}
    if name in taken or not _is_variable(name):
        raise UserError(
            f"--chat_template_kwargs sets {name!r}, which is no free name of a chat template; leave it out, and use "
            "names that the template reads, such as enable_thinking."
        )
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--chat_template_kwargs sets {name!r} to {value!r}, which JSON cannot hold ({error}); use text, numbers, "
            "true, false, null, lists and objects."
        ) from error
    # Python's spelling of these is Jinja's too.
    return f"{{%- if {name} is not defined -%}}{{%- set {name} = {plain!r} -%}}{{%- endif %}}"


def _is_variable(name: str) -> bool:
    """Whether a template can set and read ``name``; Jinja's own words, such as not, are Python identifiers too."""
    try:
        Environment().parse(f"{{% set {name} = 1 %}}{{{{ {name} }}}}")
    except TemplateSyntaxError:
        return False
    return name.isidentifier()


def read_template_kwargs(text: str) -> dict[str, Any]:
    """The object in the JSON ``text``, none for an empty text; raises `UserError` for anything else."""
    try:
        kwargs = json.loads(text or "{}")
    except (ValueError, RecursionError):
        kwargs = None
    if not isinstance(kwargs, dict):
        raise UserError(
            f"--chat_template_kwargs={text[:80]!r} must be a JSON object, such as '{{\"enable_thinking\": false}}'."
        )
    return kwargs


def message_text(prompt_or_completion: str | list[dict], role: str) -> str:
    """Text of a string, or of the last message of ``role`` in a conversation."""
    if isinstance(prompt_or_completion, str):
        return prompt_or_completion
    return next(message["content"] for message in reversed(prompt_or_completion) if message["role"] == role)
