"""Help: every flag has a sentence, stands in one group of the pipeline, and shows the default that is in force."""

import re
import sys
from dataclasses import dataclass, field, fields

import pytest
from trl import GRPOConfig

from cli.help import _GROUP_OF, GROUPS, OTHER, grouped, help_text, shown
from cli.parse import SHADOWED, parse_options
from common.config_file import PRESETS, preset_names
from intrinsic.flags.owners import owners
from intrinsic.options import BonusFlags, IntrinsicOptions, MathIntrinsicOptions
from tasks.countdown.options import CountdownOptions
from tasks.math.options import GSM8KOptions, NuminaOptions
from training.run_options import RunConfig, RunOptions

SCRIPTS = {
    "countdown": (CountdownOptions, IntrinsicOptions),
    "gsm8k": (GSM8KOptions, MathIntrinsicOptions),
    "math": (NuminaOptions, MathIntrinsicOptions),
}
LIBRARY = {field.name for field in fields(GRPOConfig)} - set(RunConfig.__annotations__)  # as TRL defines them


def types_of(task):
    return (*SCRIPTS[task], RunOptions, RunConfig)


def printed(task, monkeypatch, capsys, *flags):
    """What the script prints for ``flags``, which must end it with exit code 0."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", [f"run_{task}.py", *flags])
    with pytest.raises(SystemExit) as end:
        parse_options(task, *SCRIPTS[task])
    assert not end.value.code
    return capsys.readouterr().out


def sections(text):
    """Title of each group of flags -> names of the flags listed below it."""
    found, title = {}, None
    for line in text.splitlines():
        if re.fullmatch(r"\w.*:", line):
            title = line.removesuffix(":")
            found[title] = []
        elif match := re.match(r"  (?:-h, )?--(\w+)", line):
            found[title].append(match.group(1))
    return found


@pytest.mark.parametrize("task", SCRIPTS)
def test_no_flag_is_without_a_sentence(task):
    silent = [item.name for kind in types_of(task) for item in fields(kind) if item.init and not item.metadata["help"]]
    assert not silent


@pytest.mark.parametrize("task", SCRIPTS)
def test_own_flags_end_as_sentences(task):
    own = [item for kind in types_of(task) for item in fields(kind) if item.init and item.name not in LIBRARY]
    assert not [item.name for item in own if not item.metadata["help"].endswith(".")]


@pytest.mark.parametrize("task", SCRIPTS)
def test_help_lists_every_own_flag_once_by_group_and_help_all_every_flag(task, monkeypatch, capsys):
    short, long = (sections(printed(task, monkeypatch, capsys, flag)) for flag in ("--help", "--help_all"))
    assert list(short) == ["this script", *GROUPS] and list(long) == ["this script", *GROUPS, OTHER]
    names = [item.name for kind in types_of(task) for item in fields(kind) if item.init]
    listed = [name for group in GROUPS for name in short[group]]
    assert len(listed) == len(set(listed)), "no flag twice"
    of_a_bonus = {item.name for item in fields(BonusFlags) if owners(item)}
    assert {name for name in names if name not in LIBRARY} - of_a_bonus <= set(listed) and not of_a_bonus & set(listed)
    hidden = {flag.removeprefix("--") for flag in SHADOWED}
    assert {name for group in (*GROUPS, OTHER) for name in long[group]} == set(names) - hidden


@pytest.mark.parametrize(
    ("use_ir", "shown", "absent"),
    [
        ("knn+", {"k", "encoder", "explore_warmup"}, {"cfn_dim", "shuffle_seed", "rnd_lr"}),
        ("shuffle:cfn,rnd", {"cfn_dim", "rnd_lr", "shuffle_seed"}, {"k", "passk_k"}),
        ("memoryr", {"k"}, {"cfn_dim"}),
        ("nonsense", {"use_ir"}, {"k"}),
    ],
)
def test_help_shows_the_flags_of_the_bonuses_that_are_named(use_ir, shown, absent, monkeypatch, capsys):
    listed = sections(printed("countdown", monkeypatch, capsys, f"--use_ir={use_ir}", "--help"))["bonuses"]
    assert shown <= set(listed) and not absent & set(listed)


def test_a_flag_stands_where_the_pipeline_uses_it():
    group_of = {item.name: group for group, items in grouped(types_of("gsm8k")).items() for item, _ in items}
    expected = {
        "num_shots": "task and data",
        "lora_r": "policy",
        "L": "generation",
        "reward_legacy": "rewards",
        "cfn_dim": "bonuses",
        "learning_rate": "optimisation",
        "eval_samples": "evaluation",
        "save_steps": "logging and checkpoints",
        "weight_decay": "optimisation",
        "deepspeed": OTHER,
    }
    assert {name: group_of[name] for name in expected} == expected


def test_the_grouping_names_only_flags_that_exist():
    known = {item.name for task in SCRIPTS for kind in types_of(task) for item in fields(kind)}
    assert set(_GROUP_OF) <= known


def test_help_shows_the_defaults_of_the_policy_and_preset_on_the_command_line(monkeypatch, capsys):
    tiny = printed("countdown", monkeypatch, capsys, "--help")
    large = printed("countdown", monkeypatch, capsys, "-h", "--model_name=Qwen/Qwen2.5-0.5B-Instruct")
    preset = printed("countdown", monkeypatch, capsys, f"--config={PRESETS / 'imentor_countdown_4.yaml'}", "--help")
    defaults = [re.search(r"--bs INT .*?\[(\d+)\]", text, re.DOTALL).group(1) for text in (tiny, large, preset)]
    assert defaults == ["24", "4", "32"]
    assert re.search(r"--model_name TEXT .*\[Qwen/Qwen2.5-3B\]", preset)


def test_help_names_the_presets_and_the_rule_of_run_names(monkeypatch, capsys):
    text = " ".join(printed("math", monkeypatch, capsys, "--help").split())
    assert all(name in text for name in preset_names())
    assert "outputs/<task>/<run name>" in text and "_<flag><value> for each flag" in text


def test_percent_signs_and_line_breaks_of_a_sentence_do_no_harm():
    @dataclass
    class Options:
        share: float | None = field(default=None, metadata={"help": "Share in %(default)s\n   of 100 %."})

    text = help_text("run_x.py", (Options,), {"share": 5.0}, everything=False)
    assert re.search(r"--share FLOAT +Share in %\(default\)s of 100 %. \[5.0\]$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "value, text", [(None, "unset"), ("", "unset"), (True, "true"), ([], "none"), (["a", "b"], "a b"), (1e-6, "1e-06")]
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text
