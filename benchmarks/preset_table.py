"""Which GPU each preset is for, and its estimated peak, its slices of generation left out and in; nothing measured.

python -m benchmarks.preset_table [--output outputs/preset_table]

The peak is that of completions and prompts that are all as long as they may be, with the text encoder and the frozen
copy of the policy where the bonus takes one, under bfloat16 autocast. A card is counted with what it offers torch.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from transformers import PretrainedConfig, Qwen3Config

from benchmarks.machine import publish
from benchmarks.shapes import architecture
from cli.parse import parse_options
from common.config_file import PRESETS
from common.devices import GIB
from common.errors import run_cli
from common.flags import OutputStem, flag, parse_one
from common.markdown import markdown_table
from intrinsic import build_bonuses
from intrinsic.options import MathIntrinsicOptions
from policy.options import PolicyOptions
from tasks.choice.options import ChoiceOptions
from tasks.code.options import CodeOptions
from tasks.countdown.options import CountdownOptions
from tasks.igsm.options import IGSMOptions
from tasks.math.options import GSM8KOptions, NuminaOptions
from tasks.sql.options import SqlOptions
from training.fit.estimate import Work, estimate
from training.fit.out_of_memory import shapes_of

OPTIONS = {
    "run_gsm8k.py": (GSM8KOptions, MathIntrinsicOptions),
    "run_math.py": (NuminaOptions, MathIntrinsicOptions),
    "run_countdown.py": (CountdownOptions,),
    "run_igsm.py": (IGSMOptions,),
    "run_choice.py": (ChoiceOptions,),
    "run_code.py": (CodeOptions,),
    "run_sql.py": (SqlOptions,),
}
# What is left to torch of a card's memory: GiB by the size in its name, which presets with the ending _24gb are for.
OFFERED = {24: 22.0, 80: 79.0}
MEMORY_SETTINGS = ("micro_batch", "gradient_checkpointing", "sampling_batch")
ENCODER_BYTES = 4 * 22_713_216  # all-MiniLM-L6-v2 in float32
QWEN3_4B = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32_768,
}


@dataclass
class Options:
    """Where the table goes."""

    output: OutputStem = flag("outputs/preset_table", "Path of the results, without extension.")


def card_of(file: Path) -> int:
    """The size in the name of the card, GB, that the preset ``file`` is for."""
    return 24 if file.stem.endswith("_24gb") else 80


def shape_of(model_name: str) -> PretrainedConfig:
    """The published shape of a recipe's model, without the hub."""
    if model_name == "Qwen/Qwen3-4B-Base":
        return Qwen3Config(**QWEN3_4B)
    return architecture(
        model_name.split("/")[1].lower().replace("-math", "").replace("-coder", "").removesuffix("-instruct")
    )


def recipe(file: Path) -> tuple[PretrainedConfig, PolicyOptions, Work]:
    """What `estimate` takes, of the preset ``file`` on one GPU."""
    preset = yaml.safe_load(file.read_text(encoding="utf-8"))
    script, given = preset["script"], sys.argv
    sys.argv = [script, "--config", str(file)]
    try:
        _, intrinsic, options, config = parse_options(script[4:-3], *OPTIONS[script])
    finally:
        sys.argv = given
    bonuses = build_bonuses(intrinsic)
    settings = {name: getattr(options, name) for name in PolicyOptions.__dataclass_fields__}
    policy = PolicyOptions(**settings | {"dtype": "bfloat16" if options.lora else "float32"})
    work = Work(
        **shapes_of(options, config, bonuses),
        prompt=options.max_prompt_length,
        bfloat16=True,
        checkpointing=preset.get("gradient_checkpointing", True),
        device="cuda",
        attention="sdpa",
        encoder=ENCODER_BYTES * any("text_embedding" in bonus.needs for bonus in bonuses),
    )
    return shape_of(options.model_name), policy, work


def row(file: Path) -> tuple[list[str], int, int]:
    """The row of the preset ``file``, and its peak bytes with all completions sampled at once and as it is."""
    preset = yaml.safe_load(file.read_text(encoding="utf-8"))
    shape, policy, work = recipe(file)
    before, after = (estimate(shape, policy, item).peak for item in (replace(work, sampling_batch=0), work))
    flags = ", ".join(f"{name} {str(preset[name]).lower()}" for name in MEMORY_SETTINGS if name in preset)
    trained = "LoRA" if policy.lora else "all"
    model = preset["model_name"].split("/")[1]
    cells = [file.stem, model, trained, f"{before / GIB:.1f}", f"{after / GIB:.1f}", f"{card_of(file)} GB", flags]
    return cells, before, after


def main() -> None:
    options = parse_one(Options)
    heads = "preset", "policy", "trained", "all sampled at once, GiB", "as it is, GiB", "card", "memory settings"
    rows, peaks = [], {}
    for file in sorted(PRESETS.glob("*.yaml")):
        cells, before, after = row(file)
        rows.append(cells)
        peaks[file.stem] = {"all at once": before, "as it is": after}
    publish(options.output, markdown_table(heads, rows), {"offered GiB": OFFERED, "bytes": peaks})


if __name__ == "__main__":
    run_cli(main)
