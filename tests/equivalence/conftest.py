"""Speed of the many toy runs."""

import gc

import pytest

from tests.equivalence.scripted import forget_imports


@pytest.fixture(scope="session", autouse=True)
def forgotten_imports():
    forget_imports()
    yield
    gc.unfreeze()
