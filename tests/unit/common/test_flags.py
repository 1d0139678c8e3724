"""Every command complains about its flags in one sentence, and takes them from a YAML file too."""

import json
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass
from importlib import import_module

import pytest

from cli.help import PAGES
from common.config_file import did_you_mean
from common.errors import UserError
from common.flags import OutputFile, OutputFolder, OutputStem, answer_help, flag, parse_command, parse_one
from evaluation.options import EvalOptions
from policy.options import EMBEDDED_NAME
from policy.precision import DTYPES
from tests.processes import ROOT, run_script


@dataclass
class Toy:
    number: int = flag(1, "A number.")
    words: list[str] = flag([], "Words.")
    sure: bool = flag(False, "Whether.")

    def __post_init__(self):
        if self.number < 0:
            raise UserError(f"--number={self.number} must be at least 0.")


@dataclass
class Other:
    needed: str = flag(MISSING, "A text.")


@dataclass
class Places:
    table: OutputFile = flag("", "A file.")
    output: OutputStem = flag("", "Path without extension.")
    folder: OutputFolder = flag("", "A folder.")


@pytest.fixture
def command(monkeypatch):
    def call(*arguments, parse=lambda: parse_one(Toy)):
        monkeypatch.setattr("sys.argv", ["toy.py", *arguments])
        return parse()

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--numbr", "2"], "'--numbr' is not a flag .did you mean --number..; --help lists all"),
        (["--coef", "2"], "'--coef' is not a flag; --help lists all"),
        (["--num", "2"], "'--num' is not a flag"),  # no abbreviations: they change as flags are added
        (["word"], "'word' is not a flag"),
        (["--number", "two"], "argument --number: invalid int value: 'two'; --help explains every flag"),
        (["--number=-1"], "--number=-1 must be at least 0"),
        (["--config", "absent.yaml"], "--config='absent.yaml' is not a file"),
    ],
)
def test_a_wrong_flag_is_one_sentence_with_the_fix(arguments, message, command):
    with pytest.raises(UserError, match=message):
        command(*arguments)


def test_json_that_nests_too_deeply_is_one_sentence(command):
    @dataclass
    class Deep:
        text: str = flag("", "JSON.")

        def __post_init__(self):
            json.loads(self.text)

    with pytest.raises(UserError, match="a flag takes JSON, and what it was given nests too deeply"):
        command("--text=" + "[" * 100_000, parse=lambda: parse_one(Deep))


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(command, tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text("number: 4\nsure: yes\nwords: [a, b]\n")
    assert command("--config", str(file), "--number", "5") == Toy(5, ["a", "b"], True)
    assert command("--config", str(file), parse=lambda: parse_one(Toy, number=9)) == Toy(4, ["a", "b"], True)
    assert command(parse=lambda: parse_one(Toy, number=9)) == Toy(9)
    file.write_text("numbr: 4\n")
    with pytest.raises(UserError, match="'numbr' in --config=.*is not a flag .did you mean number"):
        command("--config", str(file))


def test_several_dataclasses_share_a_command_line_and_a_default_serves_a_needed_flag(command):
    toy, other = command("--number=3", parse=lambda: parse_command(Toy, Other, needed="here"))
    assert (toy.number, other.needed) == (3, "here")
    with pytest.raises(UserError, match="required: --needed"):
        command(parse=lambda: parse_command(Toy, Other))


@pytest.mark.parametrize("command", ["run_eval.py", "tasks.igsm.check"])
def test_a_mistyped_flag_of_any_command_ends_with_code_2_and_no_traceback(command):
    result = run_script(command, "--tsk", "gsm8k", code=2)
    assert result.stderr.splitlines()[-1].startswith("error: '--tsk' is not a flag")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["compare_runs", "plots", "records", "report", "results", "summary"])
def test_a_mistyped_or_shortened_flag_of_a_command_that_takes_names_is_one_sentence(command, monkeypatch):
    main = import_module(f"analysis.{command}").main
    shortened = {"results": "--che", "report": "--hel", "summary": "--hel"}.get(command, "--ou=a.png")
    for mistyped in ("--bogus", shortened):
        needed = [] if command == "results" else ["run", "--out=results"] if command == "records" else ["run"]
        monkeypatch.setattr(sys, "argv", [command, *needed, mistyped])
        with pytest.raises(UserError, match=f"arguments: {mistyped}; --help explains every flag"):
            main()


def test_help_of_run_eval_imports_nothing_large():
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
        "sys.argv = ['run_eval.py', '--help']; import run_eval"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--model_name" in ended.stdout and "(default: tiny)" in ended.stdout
    assert not {"torch", "trl", "datasets", "peft"} & set(ended.stderr.split())


def test_help_beside_a_wrong_flag_is_left_to_the_parser(command, capsys):
    command("--config=nowhere.yaml", "--help", parse=lambda: answer_help(Toy))
    command("--number=3", parse=lambda: answer_help(Toy))
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        command("--help", parse=lambda: answer_help(Toy))
    assert "--number" in capsys.readouterr().out


def test_evaluation_names_the_embedded_policy_and_the_precisions_as_they_are_called():
    assert EvalOptions().model_name == EMBEDDED_NAME
    assert f"{', '.join(DTYPES)}, or auto" in EvalOptions.__dataclass_fields__["dtype"].metadata["help"]


@pytest.mark.parametrize("script", ["run_countdown", "run_sft"])
def test_the_usual_names_of_flags_lead_to_ours(script):
    ours = {
        "run_countdown": "learning_rate nepochs bs gc L model_name num_generations beta use_ir max_steps",
        "run_sft": "learning_rate num_train_epochs per_device_train_batch_size gradient_accumulation_steps max_length "
        "model_name",
    }
    usual = ("lr", "epochs", "batch_size", "grad_accum", "max_tokens", "model", "group_size", "kl", "bonus", "steps")
    page = json.loads((PAGES / f"{script}.json").read_text(encoding="utf-8"))
    known = [flag["name"] for flag in page["flags"]]
    for name, meant in zip(usual, ours[script].split(), strict=False):
        assert did_you_mean(name, known, "--") == f" (did you mean --{meant}?)"


@pytest.mark.parametrize(
    ("name", "place", "complaint"),
    [
        ("table", "taken/table.json", "cannot be written .Not a directory.|cannot be written .File exists."),
        ("table", "there", "is a folder; name a file"),
        ("table", "/dev/null", "is no file that can be replaced; name another"),
        ("output", "taken/table", "cannot be written"),
        ("folder", "taken", "cannot be written"),
        ("folder", "x" * 300, "cannot be written .File name too long."),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_computed(
    name, place, complaint, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=f"--{name}='{place}' ({complaint})"):
        command(f"--{name}={place}", parse=lambda: parse_one(Places))
    command("--table=new/table.json", "--output=there", "--folder=there", parse=lambda: parse_one(Places))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "there"], "trying leaves nothing"


@pytest.mark.parametrize("traces", ["choice.traces", "countdown.bridge", "math.traces", "sql.tiny.traces"])
def test_traces_go_to_a_file_of_lines_and_nothing_is_computed_for_another(traces, command):
    main = import_module(f"tasks.{traces}").main
    for arguments, place in (([], ""), (["--output=a.txt"], "a.txt")):
        with pytest.raises(UserError, match=f"--output='{place}' must be a file that ends in .jsonl"):
            command(*arguments, parse=main)


CHECKED_OTHERWISE = {
    "evaluation/options.py",  # a file, or a folder for one, or a default: run_eval.py
    "tasks/igsm/generate.py",  # RowFile, which also locks it
    "training/new_policy.py",  # must be new
}


def test_every_command_says_which_of_its_flags_name_a_place_to_write_to():
    """A field called output, out or records has one of the types that are checked."""
    found = set()
    for folder in ("analysis", "benchmarks", "evaluation", "policy", "rewards", "tasks", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            if re.search(r"^    (output|out|records): str = (flag|field)\(", path.read_text(), re.MULTILINE):
                found.add(str(path.relative_to(ROOT)))
    assert found == CHECKED_OTHERWISE
