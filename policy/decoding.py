"""Sampling in the compute type: each weight is cast once per call of ``generate``; keys and values are kept cast, once.

Decoding one token reads every weight and all keys and values, so their bytes are its time. accelerate puts autocast
around each forward pass, at the end of which autocast forgets its casts: every float32 weight is cast again for every
token. And rotary embeddings turn keys into float32, with which the values are stored too. One context around the whole
call and a cache in the compute type leave every token and every logit as it is: the casts are those that the matrix
products make anyway. The cache is not copied for each token (policy/growing_cache.py); prompts of several completions
are read once (policy/prefill.py).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, wraps

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from common.sharding import is_sharded
from policy.drawing import LEAST_VOCABULARY, sample_by_one_number
from policy.growing_cache import GrowingCache
from policy.load import base_of
from policy.prefill import fill, shared_columns, takes_shared_prefill
from policy.shared_attention import SHARED
from policy.stages import StageCache

# Those whose matrix products autocast casts, whatever type the cache has.
ATTENTION = (*SHARED, *SHARED.values(), "flash_attention_2", "flash_attention_3")

logger = logging.getLogger(__name__)


def growing_cache(model, asked: dict) -> GrowingCache | None:
    """A cache for a call ``model.generate(**asked)``, in the type of the autocast that is on; None for the model's own.

    Why it is not for a model or a call is said once in the log.
    """
    if "past_key_values" in asked:
        return None
    reason = _reason_for_own_cache(model, asked)
    if reason is not None:
        _say_once(reason)
        return None
    device = model.device.type
    return GrowingCache(model.config, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None)


def _reason_for_own_cache(model, asked: dict) -> str | None:
    """What speaks against another cache than the one that ``generate`` makes; None where nothing does."""
    if _setting(model, asked, "use_cache") is False:
        return "the policy is sampled without a cache"
    if implementation := _setting(model, asked, "cache_implementation"):
        return f"cache_implementation is {implementation}"
    if (_setting(model, asked, "num_beams") or 1) > 1:
        return "beam search"
    if model.config._attn_implementation not in ATTENTION:
        return f"attention {model.config._attn_implementation}"
    if not model._supports_default_dynamic_cache():
        return f"{model.config.model_type} has a cache of its own"
    others = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers} - {DynamicLayer.__name__}
    return f"the policy has {', '.join(sorted(others))}" if others else None


def _setting(model, asked: dict, name: str):
    """What ``model.generate(**asked)`` takes for ``name``; None where nothing says."""
    sources = asked.get("generation_config"), model.generation_config
    values = [asked.get(name), *(getattr(source, name, None) for source in sources)]
    return next((value for value in values if value is not None), None)


def draws_by_one_number(model, asked: dict) -> bool:
    """Whether tokens of a call ``model.generate(**asked)`` are drawn as `policy.drawing` does.

    The argument that it takes drops what several processes, streams and assistants need.
    """
    others = {"custom_generate", "assistant_model", "streamer", "synced_gpus", "tokenizer"} & asked.keys()
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    whole = not _setting(model, asked, "output_scores") and (_setting(model, asked, "num_beams") or 1) == 1
    large = model.config.get_text_config().vocab_size >= LEAST_VOCABULARY
    return model.device.type == "cpu" and large and alone and whole and not others


def shares_prefill(model, asked: dict) -> bool:
    """Whether a call ``model.generate(**asked)`` can read what its rows begin with once."""
    if "past_key_values" in asked or is_sharded(model) or _reason_for_own_cache(model, asked) is not None:
        return False
    return takes_shared_prefill(model, asked)


def prefilled_cache(model, asked: dict) -> DynamicCache | None:
    """The cache of one call ``model.generate(**asked)``, with what its rows begin with; None for the model's own."""
    cache = growing_cache(model, asked)
    if cache is None or not shares_prefill(model, asked):
        return cache
    ids, mask = asked["input_ids"], asked["attention_mask"]
    columns = shared_columns(ids.masked_fill(mask == 0, -1).cpu())
    if columns:
        fill(cache, model, ids, mask, columns)
    return cache


@lru_cache
def _say_once(reason: str) -> None:
    logger.warning("the policy is sampled with its own cache, which is slower (%s)", reason)


@contextmanager
def cast_once(model, autocast: Callable[[], AbstractContextManager], left: StageCache | None = None) -> Iterator[None]:
    """While open, ``model.generate`` runs under one ``autocast`` with keys and values in its type, prompts read once.

    ``model``: the unwrapped policy, an adapter on it or not. Its weights must not change while this is open, as
    autocast keeps their casts; at the end these are dropped. ``left``: where a call that goes on with rows of the one
    before finds their keys and values.
    """
    policy = base_of(model)
    left = StageCache() if left is None else left
    usual, own = policy.generate, vars(policy).get("generate")

    @wraps(usual)
    def generate(*args, **asked):
        cache = left.take(asked)
        cache = prefilled_cache(policy, asked) if cache is None else cache
        if draws_by_one_number(policy, asked):
            asked["custom_generate"] = sample_by_one_number
        output = usual(*args, **asked, **({} if cache is None else {"past_key_values": cache}))
        left.leave(cache)
        return output

    with autocast(), _casts_kept(policy):
        policy.generate = generate
        try:
            yield
        finally:
            del policy.generate
            if own is not None:
                policy.generate = own


@contextmanager
def _casts_kept(policy) -> Iterator[None]:
    """While open, autocast keeps the casts of frozen weights too; it does so for weights with a gradient alone."""
    frozen = []
    if torch.is_autocast_enabled(policy.device.type):
        frozen = [
            weight
            for weight in policy.parameters()
            if type(weight) is torch.nn.Parameter and weight.dtype is torch.float32 and not weight.requires_grad
        ]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        torch.clear_autocast_cache()
