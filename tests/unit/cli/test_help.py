"""Help: every flag has a sentence, stands in one group of the pipeline, and shows the default that is in force."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest
from trl import GRPOConfig

from cli.help import GROUP_OF, GROUPS, OTHER, FlagHelp, Page, answer_help, format_page, load_page, page_file, shown
from cli.help_flags import grouped, page_of
from cli.parse import SHADOWED, parse_options
from cli.parse_sft import SHADOWED as SFT_SHADOWED
from common.config_file import PRESETS, preset_names
from common.flags import flag
from intrinsic.flags.owners import owners
from intrinsic.options import BonusFlags, IntrinsicOptions, MathIntrinsicOptions
from tasks.choice.options import ChoiceOptions
from tasks.code.options import CodeOptions
from tasks.countdown.options import CountdownOptions
from tasks.igsm.options import IGSMOptions
from tasks.math.options import GSM8KOptions, NuminaOptions
from tasks.sql.options import SqlOptions
from tests.processes import ROOT
from training.run_options import RunConfig, RunOptions
from training.script_config import ScriptConfig
from training.sft import SFTOptions, SFTRunConfig

SCRIPTS = {
    "countdown": (CountdownOptions, IntrinsicOptions),
    "igsm": (IGSMOptions, IntrinsicOptions),
    "choice": (ChoiceOptions, IntrinsicOptions),
    "code": (CodeOptions, IntrinsicOptions),
    "sql": (SqlOptions, IntrinsicOptions),
    "gsm8k": (GSM8KOptions, MathIntrinsicOptions),
    "math": (NuminaOptions, MathIntrinsicOptions),
}
OURS = {name for kind in (RunConfig, ScriptConfig) for name in kind.__annotations__}
LIBRARY = {field.name for field in fields(GRPOConfig)} - OURS  # as TRL defines them


def types_of(task):
    return (*SCRIPTS[task], RunOptions, RunConfig)


def printed(task, monkeypatch, capsys, *flags):
    """What the script prints for ``flags``, which must end it with exit code 0."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", [f"run_{task}.py", *flags])
    monkeypatch.setattr(Page, "save", lambda page: None)
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
    assert set(GROUP_OF) <= known


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
        share: float | None = flag(None, "Share in %(default)s\n   of 100 % or 20%%.")

    text = format_page(page_of("run_x.py", (Options,), {}), {"share": 5.0}, everything=False)
    assert re.search(r"--share FLOAT +Share in %\(default\)s of 100 % or 20%. \[5.0\]$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "value, text", [(None, "unset"), ("", "unset"), (True, "true"), ([], "none"), (["a", "b"], "a b"), (1e-6, "1e-06")]
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text


def kept_and_made():
    """(name of the script, page made of its flags now)."""
    for task in SCRIPTS:
        yield f"run_{task}.py", page_of(f"run_{task}.py", types_of(task), SHADOWED, task)
    yield "run_sft.py", page_of("run_sft.py", (SFTOptions, SFTRunConfig), SFT_SHADOWED)


@pytest.mark.parametrize(("script", "made"), kept_and_made(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_page_that_is_kept_is_the_one_that_the_flags_make(script, made):
    assert load_page(script) == made, f"make it again: python {script} --help, and commit cli/pages/"


@pytest.mark.parametrize("damage", ["cut", "older", "newer", "another", "deep", "bytes"])
def test_a_page_that_is_damaged_or_of_other_fields_is_made_again(damage, tmp_path, monkeypatch):
    text = page_file("run_sft.py").read_text(encoding="utf-8")
    page = json.loads(text)
    contents = {
        "cut": text[: len(text) // 2],
        "older": json.dumps({name: value for name, value in page.items() if name != "flags"}),
        "newer": json.dumps(page | {"more": 1}),
        "another": json.dumps(page | {"sources": []}),
        "deep": "[" * 100_000,
    }
    monkeypatch.setattr("cli.help.PAGES", tmp_path)
    kept = page_file("run_sft.py")
    kept.write_bytes(b"\xff" if damage == "bytes" else contents[damage].encode())
    assert load_page("run_sft.py") is None
    Page(**page | {"flags": [FlagHelp(**flag) for flag in page["flags"]]}).save()
    assert kept.read_text(encoding="utf-8") == text and list(tmp_path.iterdir()) == [kept]


def test_a_page_that_cannot_be_kept_is_told_of_and_ends_nothing(tmp_path, monkeypatch, capsys):
    page = load_page("run_sft.py")
    (tmp_path / "file").touch()
    monkeypatch.setattr("cli.help.PAGES", tmp_path / "file")
    page.save()
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "run_sft.json cannot be written" in said and said.count("\n") == 1


def test_a_kept_page_prints_what_the_parser_of_all_flags_prints(monkeypatch, capsys):
    for flags in (["--help", "--use_ir=memoryr"], ["--help_all", f"--config={PRESETS / 'imentor_countdown_4.yaml'}"]):
        slow = printed("countdown", monkeypatch, capsys, *flags)
        with pytest.raises(SystemExit) as end:
            answer_help("run_countdown.py")
        assert not end.value.code and capsys.readouterr().out == slow


@pytest.mark.parametrize(
    "flags", [["--use_ir=no"], ["--help", "--config=nowhere.yaml"], ["--help"]], ids=["no help", "bad file", "stale"]
)
def test_what_a_kept_page_cannot_answer_is_left_to_the_parser(flags, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run_countdown.py", *flags])
    if flags == ["--help"]:
        monkeypatch.setattr("cli.help.digest", lambda file: "changed")
    answer_help("run_countdown.py")
    assert capsys.readouterr().out == ""


def test_help_imports_nothing_large():
    code = "import sys; sys.argv = ['run_countdown.py', '--help']; import run_countdown"
    names = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
    ended = subprocess.run([sys.executable, "-c", names + code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--use_ir TEXT" in ended.stdout
    assert not {"torch", "transformers", "trl", "numpy", "datasets"} & set(ended.stderr.split())


def test_a_reader_that_stops_early_ends_help_without_an_error():
    code = f"from cli.help import show; show('x' * {1 << 18})"  # more than a pipe holds, so that writing goes on
    command = ["bash", "-c", '"$0" -c "$1" | head -c 1', sys.executable, code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("x", "")
