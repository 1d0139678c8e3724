"""``pytest tests/gpu``: at full size on a GPU, at toy size with ``--device cpu``; figures are printed at the end."""

import gc
import os

import pytest
import torch

from benchmarks.shapes import save_llama
from tests.equivalence.scripted import forget_imports
from tests.gpu.checks import GPU_CHECKS
from tests.gpu.machine import SHAPE_OF_CPU, SHAPE_OF_GPU, Machine

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[FIGURES] = []
    if config.getoption("--device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """The checks in the order of `GPU_CHECKS`, behind all other tests."""
    place = {name: number for number, name in enumerate(GPU_CHECKS)}
    items.sort(key=lambda item: place.get(getattr(item, "originalname", ""), -1))


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture
def figure(request):
    """Prints a measured figure behind the tests: ``figure("seconds per step", 1.2)``."""
    name = request.node.originalname
    return lambda what, value: request.config.stash[FIGURES].append(f"{name}: {what}: {value}")


@pytest.fixture(scope="session")
def machine(request, tmp_path_factory):
    """Where the checks run, with a policy of random weights in a folder, of a size for it."""
    asked = request.config.getoption("--device")
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device cuda: torch sees no CUDA device here; use --device cpu.", returncode=2)
    on_gpu = torch.cuda.is_available() and asked != "cpu"
    folder = tmp_path_factory.mktemp("policy")
    save_llama(SHAPE_OF_GPU if on_gpu else SHAPE_OF_CPU, folder)
    return Machine(torch.device("cuda", 0) if on_gpu else torch.device("cpu"), str(folder))


@pytest.fixture(scope="session", autouse=True)
def forgotten_imports():
    forget_imports()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def freed_memory():
    """No check is left with the memory of the one before."""
    yield
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@pytest.fixture
def gpu(machine, request):
    """`machine`, where it has a GPU."""
    if not machine.has_gpu:
        pytest.skip(f"{request.node.originalname}: needs a CUDA GPU")
    return machine
