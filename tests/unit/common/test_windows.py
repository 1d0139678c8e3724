"""What Windows lacks is not needed: modules of POSIX, folders that can be opened, files flushed from a reader."""

import importlib.util
import os
import re
import sys
from types import SimpleNamespace

import psutil
import pytest

from common import files as state_io
from tests.processes import ROOMS, ROOT

POSIX_ONLY = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
# The code that runs outside of the tests, which fork.
FILES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in room.rglob("*.py"))])


def test_no_module_imports_what_only_posix_has():
    imports = re.compile(rf"^(?:import|from) (?:{'|'.join(POSIX_ONLY)})\b", re.MULTILINE)
    found = [path.name for path in FILES if imports.search(path.read_text(encoding="utf-8"))]
    # Imported in the child of the sandbox alone, which other systems than Linux refuse to start.
    assert len(FILES) > 100 and found == ["confine.py"]


@pytest.fixture
def without_resource(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)


def test_peak_memory_is_told_without_the_module_resource(without_resource, monkeypatch):
    spec = importlib.util.spec_from_file_location("anew", ROOT / "training" / "fit" / "out_of_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    assert module.peak_bytes() == 12345


def test_state_is_written_where_folders_cannot_be_opened_nor_readers_flushed(monkeypatch, tmp_path):
    opened, real_open, real_fsync = {}, os.open, os.fsync

    def open_as_windows(path, flags, *rest):
        if os.path.isdir(path):
            raise PermissionError(path)
        descriptor = real_open(path, flags, *rest)
        opened[descriptor] = flags
        return descriptor

    def flush_as_windows(descriptor):
        if opened.get(descriptor) == os.O_RDONLY:
            raise OSError("Bad file descriptor")
        real_fsync(descriptor)

    monkeypatch.setattr(state_io, "ON_WINDOWS", True)
    monkeypatch.setattr(os, "open", open_as_windows)
    monkeypatch.setattr(os, "fsync", flush_as_windows)
    state_io.write_json(tmp_path / "settings.json", {"seed": 1})
    monkeypatch.undo()
    assert state_io.read_json(tmp_path / "settings.json", "") == {"seed": 1}
