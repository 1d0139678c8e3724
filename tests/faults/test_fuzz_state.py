"""Damaged and hostile files under the names of a run's state: every loader refuses them in one sentence or reads them.

Nothing that a file holds is executed, and none makes a loader hang.
"""

import json
import pickle
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.runs import read_run
from common.config_file import read_config
from common.errors import RunError, UserError
from common.files import write_json
from common.state import load_state, save_state
from evaluation.checkpoint import PartialRecords
from evaluation.compare import first_pass, read_report
from evaluation.evaluate import HeldOut
from evaluation.graders import read_rows
from policy.load import resolve
from tasks.igsm.row_file import RowFile, read_column
from tests.quick import MAX_SECONDS, assert_within, seconds_of
from training import run_folder
from training.best import RECORD, BestPolicy
from training.checkpoint import find_checkpoint, mark_complete
from training.run_folder import MetricsFile, create_run_folder
from training.watchdogs.callback import WatchdogCallback

MAX_SECONDS_OF = {"preset": 2.0}  # PyYAML is Python; a preset is what the user names, not state that a run reads
FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.", "socket.connect")
RECORDS = [{"id": 0, "completion": "4", "length": 1, "truncated": False, "pass": "sampled", "medium": True}]
IDENTITY = {"task": "countdown", "seed": 0}


def write_state(folder):
    state = {"memory": {"keys": torch.arange(6.0), "texts": ["a", "b"]}, "best": float("inf"), "steps": [1, 2]}
    save_state({"identity": IDENTITY, "bonuses": state}, folder)


def write_checkpoint(folder):
    (folder / "checkpoint-3").mkdir()
    write_state(folder / "checkpoint-3")
    mark_complete(folder / "checkpoint-3")


def load_newest_checkpoint(folder):
    newest = find_checkpoint(folder, "auto", report=lambda reason: None)
    return newest and load_state(newest)


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def go_on_with_evaluation(folder):
    return PartialRecords(folder / "main.partial.jsonl", IDENTITY).batches


def resume_run(folder):
    create_run_folder(folder, {}, resume=True).release()


def load_earlier_evaluation(folder):
    return HeldOut("countdown", [], None, folder, [], 0).load("before")


def write_run(folder):
    (folder / "eval").mkdir()
    write_lines(folder / "metrics.jsonl", [{"step": n, "loss": 0.5} for n in range(5)])
    write_json(folder / "run.json", {"seed": 0, "resumed": []})
    write_json(folder / "eval" / "before.json", {"step": 0, "metrics": {}})


def write_resumable(folder):
    (folder / "eval").mkdir()
    write_lines(folder / "metrics.jsonl", [{"step": n, "loss": 0.5} for n in range(5)])
    write_lines(folder / "warnings.jsonl", [{"step": n, "watchdog": "repetition"} for n in range(5)])
    accuracy = {"mean": 0.5, "low": 0.4, "high": 0.6}
    write_json(folder / "eval" / "before.json", {"step": 0, "metrics": {"accuracy": accuracy}})


def look_back(folder):
    WatchdogCallback(folder, out=lambda line: None).on_train_begin(None, SimpleNamespace(global_step=3), None)


# Loader -> (writes valid files to a folder, the files of them to damage, loads them).
LOADERS = {
    "state": (write_state, ["intrinsic_state.json", "intrinsic_state.safetensors"], load_state),
    "checkpoint": (
        write_checkpoint,
        [f"checkpoint-3/{name}" for name in ("COMPLETE", "intrinsic_state.json", "intrinsic_state.safetensors")],
        load_newest_checkpoint,
    ),
    "metrics": (
        lambda folder: write_lines(folder / "metrics.jsonl", [{"step": n, "loss": 0.5} for n in range(5)]),
        ["metrics.jsonl"],
        lambda folder: MetricsFile(folder / "metrics.jsonl").truncate_after(3),
    ),
    "watchdogs of a resumed run": (
        write_resumable,
        ["metrics.jsonl", "warnings.jsonl", "eval/before.json"],
        look_back,
    ),
    "run record": (
        lambda folder: write_json(folder / "run.json", {"seed": 0, "resumed": []}),
        ["run.json"],
        resume_run,
    ),
    "best policy": (
        lambda folder: write_json(folder / RECORD, {"step": 3, "accuracy": 0.5, "name": "before"}),
        [RECORD],
        lambda folder: BestPolicy(folder, print),
    ),
    "evaluation": (
        lambda folder: write_json(folder / "before.json", {"task": "countdown", "metrics": {}, "records": RECORDS}),
        ["before.json"],
        lambda folder: first_pass(read_report(folder / "before.json")),
    ),
    "earlier evaluation of a resumed run": (
        lambda folder: write_json(folder / "before.json", {"task": "countdown", "metrics": {}, "records": RECORDS}),
        ["before.json"],
        load_earlier_evaluation,
    ),
    "begun evaluation": (
        lambda folder: write_lines(folder / "main.partial.jsonl", [IDENTITY, RECORDS, RECORDS]),
        ["main.partial.jsonl"],
        go_on_with_evaluation,
    ),
    "labelled cases": (
        lambda folder: write_lines(folder / "cases.jsonl", [{"gold": "4", "prediction": "4", "expected_bool": True}]),
        ["cases.jsonl"],
        lambda folder: list(read_rows(str(folder / "cases.jsonl"))),
    ),
    "run to plot": (
        write_run,
        ["metrics.jsonl", "run.json", "eval/before.json"],
        lambda folder: read_run(folder).columns("loss"),
    ),
    "begun file of problems": (
        lambda folder: write_lines(folder / "rows.jsonl.partial", [{"settings": IDENTITY}, {"answer": 1}]),
        ["rows.jsonl.partial"],
        lambda folder: RowFile(folder / "rows.jsonl", IDENTITY).recover(),
    ),
    "settings of a file of problems": (
        lambda folder: [
            write_lines(folder / "rows.jsonl", [{"answer": 1}]),
            write_json(folder / "rows.jsonl.meta.json", {"settings": IDENTITY, "summary": {}}),
        ],
        ["rows.jsonl.meta.json"],
        lambda folder: RowFile(folder / "rows.jsonl", IDENTITY).is_complete(),
    ),
    "column of a file of problems": (
        lambda folder: write_lines(folder / "rows.jsonl", [{"answer": 1}, {"answer": 2}]),
        ["rows.jsonl"],
        lambda folder: read_column(folder / "rows.jsonl", "answer"),
    ),
    "preset": (
        lambda folder: (folder / "preset.yaml").write_text("script: run_math.py\nbs: 2\nlora: true\nL: 1.0e3\n"),
        ["preset.yaml"],
        lambda folder: read_config(str(folder / "preset.yaml"), "run_math.py"),
    ),
    "adapter": (
        lambda folder: [
            write_json(folder / "adapter_config.json", {"base_model_name_or_path": "tiny"}),
            (folder / "adapter_model.safetensors").touch(),
        ],
        ["adapter_config.json"],
        lambda folder: resolve(str(folder)),
    ),
    "sharded policy": (
        lambda folder: [
            write_json(folder / "config.json", {}),
            write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "config.json"}}),
        ],
        ["model.safetensors.index.json"],
        lambda folder: resolve(str(folder)),
    ),
}


class Trap:
    """Unpickling it runs a function of its own."""

    def __reduce__(self):
        return (print, ("the file was executed",))


HOSTILE = [
    pickle.dumps(Trap()),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 900 + b"]" * 900,
    b"9" * 100_000,
    b"NaN",
    b"\xff\xfe\x00",
    b"\x00" * 64,
    b"",
    b"!!python/object/apply:os.system ['true']",
    b"&a [*a, *a]",
    b"2001-99-99",
    b"a: !!int x",
    b"? [1]\n: 2",
    b"\xff" * 8 + b"{}",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """``content`` cut, with flipped bits, with one JSON value in place of another, or something else altogether."""
    kind = draw(st.sampled_from(["cut", "flipped", "edited", "random", "hostile"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if kind == "flipped":
        flipped = bytearray(content)
        for position in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            flipped[position] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if kind == "edited":
        return draw(edited_json(content))
    return draw(st.binary(max_size=200) if kind == "random" else st.sampled_from(HOSTILE))


@st.composite
def edited_json(draw, content: bytes) -> bytes:
    """JSON, or lines of JSON, with one value anywhere in it replaced; bytes that are neither stay as they are."""
    try:
        documents = [json.loads(content)]
    except ValueError:
        try:
            documents = [json.loads(line) for line in content.splitlines()]
        except ValueError:
            return content
    node, key = documents, draw(st.integers(0, len(documents) - 1))
    while isinstance(node[key], (dict, list)) and node[key] and draw(st.booleans()):
        node = node[key]
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    if isinstance(node, dict) and draw(st.booleans()):
        del node[key]
    else:
        node[key] = draw(json_values)
    return b"\n".join(json.dumps(document).encode() for document in documents) + b"\n"


class Watch:
    """Counts what a file that is executed would do, through an audit hook, which Python cannot take out again."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self.on and event.startswith(FORBIDDEN):
            self.seen.append(event)

    def __enter__(self):
        self.on, self.seen = True, []
        return self

    def __exit__(self, *exception):
        self.on = False


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture
def record_without_git(monkeypatch):
    """A run's record asks git for the commit, in a process of its own."""
    monkeypatch.setattr(run_folder, "describe_run", lambda options: {})


def test_the_watch_sees_an_unpickled_trap(watch):
    with watch:
        pickle.loads(pickle.dumps(Trap()))
    assert watch.seen == ["pickle.find_class"]


@pytest.mark.fault("F25")
@pytest.mark.fault("F26")
@pytest.mark.parametrize("loader", LOADERS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_in_a_sentence_or_read(loader, data, watch, record_without_git):
    write, names, load = LOADERS[loader]
    name = data.draw(st.sampled_from(names))
    content = None

    def seconds_to_load() -> float:
        nonlocal content
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(folder)
            content = data.draw(damaged((folder / name).read_bytes())) if content is None else content
            (folder / name).write_bytes(content)
            seconds = seconds_of(lambda: load_or_refuse(load, folder, watch))
        assert watch.seen == []
        return seconds

    assert_within(MAX_SECONDS_OF.get(loader, MAX_SECONDS), seconds_to_load)


def load_or_refuse(load, folder: Path, watch: Watch) -> None:
    """Whatever the loader refuses, it refuses in a sentence."""
    with watch:
        try:
            load(folder)
        except (UserError, RunError) as error:
            assert str(error)


@pytest.mark.parametrize("loader", LOADERS)
def test_the_files_load_before_they_are_damaged(loader, tmp_path, record_without_git):
    write, names, load = LOADERS[loader]
    write(tmp_path)
    load(tmp_path)
    assert all((tmp_path / name).is_file() for name in names)


WRONG = {
    "state": ("intrinsic_state.json", {"version": 1, "state": {}}),
    "metrics": ("metrics.jsonl", {"step": "three"}),
    "metrics without a step": ("metrics.jsonl", {"loss": 0.5}),
    "metrics of a step that is no number": ("metrics.jsonl", {"step": True}),
    "warnings of a resumed run": ("warnings.jsonl", {"step": 1}),
    "evaluation of a resumed run": ("eval/before.json", {"step": 0, "metrics": {"accuracy": 0.5}}),
    "run record": ("run.json", {"resumed": {}}),
    "best policy": (RECORD, {"accuracy": "0.5"}),
    "evaluation": ("before.json", {"task": "countdown", "records": [1]}),
    "earlier evaluation of a resumed run": ("before.json", []),
    "begun evaluation": ("main.partial.jsonl", [IDENTITY]),
    "labelled cases": ("cases.jsonl", []),
    "preset": ("preset.yaml", []),
    "adapter": ("adapter_config.json", {"base_model_name_or_path": 3}),
    "sharded policy": ("model.safetensors.index.json", {"weight_map": [1]}),
}


@pytest.mark.fault("F25")
@pytest.mark.parametrize("loader", WRONG)
def test_json_of_another_shape_is_refused(loader, tmp_path, record_without_git):
    name, content = WRONG[loader]
    write, _, load = LOADERS.get(loader) or LOADERS["watchdogs of a resumed run"]
    write(tmp_path)
    (tmp_path / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(UserError, match=name):
        load(tmp_path)
