"""The tokens that end a completion: the tokenizer's, the generation config's, and the end of an assistant turn.

A base model's tokenizer may end texts with another token than its chat template ends turns with. A policy trained on
conversations then writes the template's, and would never stop at its tokenizer's. So generation in training and
evaluation stops at each of them, and every one of them makes a completion a whole one.
"""

from datasets import Dataset
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from policy.chat import TEMPLATE_ERRORS

_SAID = "something"


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the chat template writes behind an assistant's last turn; None where it writes none."""
    if tokenizer.chat_template is None:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _SAID}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except TEMPLATE_ERRORS:
        return None
    behind = text.rpartition(_SAID)[2].lstrip()
    tokens = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    found = [content for content in tokens if content.strip() and behind.startswith(content)]
    return tokens[max(found, key=len)] if found else None


def reply_end_id(prompt: str | list[dict], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that a reply to ``prompt`` ends in as a rule: of a conversation its turn's, else the tokenizer's."""
    end = None if isinstance(prompt, str) else turn_end_id(tokenizer)
    return tokenizer.eos_token_id if end is None else end


def _configured(generation_config: GenerationConfig) -> list[int]:
    ids = generation_config.eos_token_id
    return list(ids) if isinstance(ids, list | tuple) else [] if ids is None else [ids]


def end_token_ids(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig) -> list[int]:
    """Every token that ends a completion, each once: the tokenizer's, those of the config, the chat template's."""
    ids = [tokenizer.eos_token_id, *_configured(generation_config), turn_end_id(tokenizer)]
    return list(dict.fromkeys(index for index in ids if index is not None))


def set_end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make ``model`` stop at each of `end_token_ids`, here and wherever its saved generation config is read."""
    ids = end_token_ids(tokenizer, model.generation_config)
    if ids and ids != _configured(model.generation_config):
        model.generation_config.eos_token_id = ids if len(ids) > 1 else ids[0]


def end_tokens_differ(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig) -> bool:
    """Whether tokenizer, generation config and chat template, as far as they name an end, name different ones."""
    return len(end_token_ids(tokenizer, generation_config)) > 1


def described_end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig) -> str:
    """The end tokens with where each is from, for a line at the start."""
    sources = {
        "tokenizer": [tokenizer.eos_token_id],
        "generation config": _configured(generation_config),
        "chat template": [turn_end_id(tokenizer)],
    }
    named = []
    for index in end_token_ids(tokenizer, generation_config):
        said_by = ", ".join(name for name, ids in sources.items() if index in ids)
        named.append(f"{tokenizer.convert_ids_to_tokens(index)} ({said_by})")
    return f"a completion ends at {' or '.join(named)}" if named else "no token ends a completion"


def with_end_token(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Conversations whose last turn ends in a token that ends completions, so that a policy learns to stop.

    The chat template writes it; where that writes none, the tokenizer's goes behind the last turn. Rows of texts are
    left to the trainer, which ends them with the tokenizer's.

    Args:
        rows: columns prompt and completion, both texts or both conversations.
    """
    end = tokenizer.eos_token
    if isinstance(rows[0]["prompt"], str) or turn_end_id(tokenizer) is not None or end is None:
        return rows

    def ended(row: dict) -> dict:
        *others, last = row["completion"]
        return {"completion": [*others, last | {"content": last["content"].removesuffix(end) + end}]}

    return rows.map(ended)
