"""Loading the policy and its tokenizer: the embedded one, a hub name, a saved model, or a LoRA adapter on its base."""

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import snapshot_download
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import find_adapter_config_file

from common.errors import UserError
from common.files import is_path, mark_made, read_json, remove_made
from policy.chat import take_system_turns, take_template_kwargs
from policy.end_tokens import set_end_tokens
from policy.options import ALL_LINEAR, EMBEDDED_IGSM_NAME, EMBEDDED_NAME, PolicyOptions, module_names
from policy.packaged import find_packaged, is_packaged
from policy.precision import NAMES

ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED = ASSETS / "tiny_policy"
EMBEDDED_FOLDERS = {EMBEDDED_NAME: EMBEDDED, EMBEDDED_IGSM_NAME: ASSETS / "tiny_igsm_policy"}
WEIGHTS = "model.safetensors"
# Layers that LoRA can adapt.
ADAPTABLE = (torch.nn.Linear, torch.nn.Embedding, Conv1D)


def is_embedded(model_name: str) -> bool:
    """Whether ``model_name`` is a policy that ships with the project: of Countdown, or of iGSM."""
    return model_name in EMBEDDED_FOLDERS


def adapter_base(model_name: str) -> str | None:
    """The base model that the adapter in the folder ``model_name`` was trained on; None when it is no adapter."""
    config = Path(model_name) / "adapter_config.json"
    if not config.is_file():
        return None
    fix = "name the base model there"
    base = read_json(config, fix).get("base_model_name_or_path")
    if not isinstance(base, str | None):
        raise UserError(f"{config} has base_model_name_or_path={base!r}; {fix}.")
    return base


def resolve(model_name: str) -> str:
    """The path or hub name to load; raises `UserError`, before any weights are read, when there is nothing to load.

    An adapter of the hub is its local copy, and SmolLM2-135M-Instruct may come from a package (`policy.packaged`). The
    hub is asked once for each name.
    """
    if is_embedded(model_name):
        return str(EMBEDDED_FOLDERS[model_name])
    if is_packaged(model_name):
        return find_packaged(model_name)
    if os.path.isdir(model_name):
        _check_folder(Path(model_name))
        return model_name
    if is_path(model_name):
        raise UserError(
            f"--model_name={model_name!r} is a path, and no folder is there; check it, or give a name of the hub "
            f"(owner/name) or --model_name={EMBEDDED_NAME}."
        )
    return _resolve_on_hub(model_name)


@cache
def _resolve_on_hub(model_name: str) -> str:
    try:
        if find_adapter_config_file(model_name) is not None:
            return resolve(snapshot_download(model_name))
        AutoConfig.from_pretrained(model_name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model_name={model_name!r} is neither a local folder nor reachable on the hub "
            f"({type(error).__name__}); check the name and the connection, download it first, or use "
            f"--model_name={EMBEDDED_NAME}."
        ) from error
    return model_name


def _check_folder(folder: Path) -> None:
    """Raise `UserError` unless ``folder`` holds a whole model, or an adapter whose base can be loaded."""
    if (folder / "adapter_config.json").is_file():
        base = adapter_base(str(folder))
        if not base:
            raise UserError(
                f"--model_name={str(folder)!r} is an adapter that does not name its base model; name it there."
            )
        if not any(folder.glob("adapter_model.*")):
            raise UserError(
                f"--model_name={str(folder)!r} is an adapter without weights; its checkpoint is incomplete."
            )
        try:
            resolve(base)
        except UserError as error:
            raise UserError(
                f"--model_name={str(folder)!r} is an adapter whose base {base!r} is not there; "
                "put it there, or correct base_model_name_or_path in adapter_config.json."
            ) from error
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"--model_name={str(folder)!r} is a folder without config.json; give a saved model.")
    index = folder / f"{WEIGHTS}.index.json"
    shards = _shards(index) if index.is_file() else {WEIGHTS}
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise UserError(
            f"--model_name={str(folder)!r} lacks {missing[0]}: the checkpoint is incomplete; give a whole one."
        )


def _shards(index: Path) -> set[str]:
    """Names of the weight files that ``index`` lists; raises `UserError` when it lists none."""
    fix = "give a whole checkpoint"
    names = read_json(index, fix).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} holds no weight_map of file names; {fix}.")
    return set(names.values())


def load_tokenizer(model_name: str, chat_template_kwargs: dict[str, Any] | None = None) -> PreTrainedTokenizerBase:
    """Left-padding tokenizer; a missing pad token becomes the EOS token. An adapter without one has its base's.

    Its chat template reads ``chat_template_kwargs`` (see `policy.chat.take_template_kwargs`), and takes a system turn
    where that can be brought about (see `policy.chat.take_system_turns`).
    """
    path = resolve(model_name)
    base = adapter_base(path)
    if base is not None and not (Path(path) / "tokenizer_config.json").is_file():
        return load_tokenizer(base, chat_template_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    take_template_kwargs(tokenizer, chat_template_kwargs)
    take_system_turns(tokenizer)
    return tokenizer


def generation_config_of(model_name: str) -> GenerationConfig:
    """How the policy, or the base of an adapter, generates; by its architecture where no file says it."""
    path = resolve(model_name)
    try:
        return GenerationConfig.from_pretrained(adapter_base(path) or path)
    except OSError:
        return GenerationConfig.from_model_config(architecture_of(model_name))


def architecture_of(model_name: str) -> PretrainedConfig:
    """The configuration of the policy, or of the base of an adapter."""
    path = resolve(model_name)
    base = adapter_base(path)
    return AutoConfig.from_pretrained(path) if base is None else architecture_of(base)


def check_lora_targets(model_name: str, options: PolicyOptions) -> None:
    """Raise `UserError`, with the names that exist, for a name in ``--lora_target_modules`` that no linear layer has.

    A name stands for the layers whose path in the policy is it, or ends in it after a dot. Reads no weights.
    """
    if not options.lora or options.lora_target_modules == ALL_LINEAR:
        return
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(architecture_of(model_name))
    paths = [path for path, module in policy.named_modules() if isinstance(module, ADAPTABLE)]
    asked = module_names(options.lora_target_modules)
    wrong = [name for name in asked if not any(path == name or path.endswith(f".{name}") for path in paths)]
    if wrong or not asked:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
        raise UserError(
            f"--lora_target_modules={options.lora_target_modules!r}: {model_name!r} has no layer "
            f"{', '.join(map(repr, wrong)) or 'of no name'}; use {ALL_LINEAR}, or some of {known}."
        )


def base_of(model):
    """The model under an adapter, or ``model`` itself where it has none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def context_length(model_name: str) -> int | None:
    """Most tokens of prompt and completion together that the policy was built for, where its config says so."""
    return getattr(architecture_of(model_name), "max_position_embeddings", None)


def load_policy(model_name: str, options: PolicyOptions | None = None) -> PreTrainedModel:
    """The policy, by default with float32 weights: updates at learning rates around 1e-6 vanish in bfloat16 ones.

    The forward pass runs in half precision by autocast where `policy.precision` says so. An adapter is merged into
    its base. An embedded policy on CPU takes eager attention: as fast as SDPA in float32, and with AMX and
    bfloat16 autocast 2.4 times.
    """
    options = options or PolicyOptions()
    path = resolve(model_name)
    base = adapter_base(path)
    if base is not None:
        merged = PeftModel.from_pretrained(load_policy(base, options), path).merge_and_unload()
        return merged.requires_grad_(True)  # the adapter had frozen them
    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=options.weight_dtype(),
            attn_implementation=attention_of(path, options.attn_implementation),
            quantization_config=options.quantization(),
        )
    except (ImportError, ValueError) as error:
        if options.attn_implementation == "auto":
            raise
        raise UserError(
            f"--attn_implementation={options.attn_implementation!r} cannot be had ({error}); use auto."
        ) from error
    except SafetensorError as error:
        raise UserError(
            f"--model_name={model_name!r}: its weights cannot be read ({error}); give a whole checkpoint."
        ) from error


def save_merged(adapter: str, folder: Path, options: PolicyOptions) -> None:
    """Save the adapter in the folder ``adapter``, merged into its base, with its tokenizer.

    The model has the precision of the weights that a run with these ``options`` keeps, in memory and in the file. Each
    weight is rounded to it once, after the adapter is added in float32. It is merged from files, not in place: weights
    in 4 bits would lose by it.
    """
    kept = PolicyOptions(dtype=NAMES[options.weight_dtype()])
    model, tokenizer = load_policy(adapter, kept), load_tokenizer(adapter)
    set_end_tokens(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def lora_base(model_name: str, options: PolicyOptions, folder: Path, resumes: bool) -> str:
    """The name of what ``--lora`` trains on: ``model_name``, or ``folder`` where that is itself an adapter.

    ``folder`` then gets the merged model, which the new adapter names as its base: another adapter alone would be
    exported, and loaded again, without the first. A run that ``resumes`` keeps the one it began with. To be called by
    every process.
    """
    path = resolve(model_name)
    if not options.lora or adapter_base(path) is None:
        return model_name
    with PartialState().main_process_first():
        if PartialState().is_main_process and not (resumes and (folder / "config.json").is_file()):
            remove_made(folder)
            part = folder.with_name(folder.name + ".partial")
            shutil.rmtree(part, ignore_errors=True)
            save_merged(path, part, options)
            mark_made(part, model_name)
            part.rename(folder)
    return str(folder.resolve())


def attention_of(path: str, asked: str) -> str | None:
    """The attention that ``--attn_implementation=asked`` means at ``path``; None is transformers' own choice."""
    if asked != "auto":
        return asked
    is_tiny = Path(path) in EMBEDDED_FOLDERS.values()
    return "eager" if is_tiny and not torch.accelerator.is_available() else None
