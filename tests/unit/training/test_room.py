"""A run that its GPU is too small for is told so, with what to change, before any weight is loaded."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from policy.options import PolicyOptions
from tests.unit.training.test_evaluation_memory import SHAPE, WORK
from training.fit import out_of_memory, room
from training.fit.estimate import estimate
from training.fit.room import room_warning

OPTIONS = PolicyOptions()
OPTIONS.model_name = "toy"
PEAK = estimate(SHAPE, OPTIONS, WORK).peak


@pytest.fixture
def warn(monkeypatch):
    """`room_warning` on a GPU with that share of the memory that the run is estimated to take."""
    monkeypatch.setattr(room, "work_of", lambda *run: replace(WORK))
    monkeypatch.setattr(room, "longest_prompt", lambda options, config: WORK.prompt)
    for module in (room, out_of_memory):
        monkeypatch.setattr(module, "architecture_of", lambda name: SHAPE)

    def call(share, device="cuda", **config):
        card = SimpleNamespace(name="Card", total_memory=int(share * PEAK))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
        settings = {"device": torch.device(device), "world_size": 1, "use_vllm": False} | config
        return room_warning(OPTIONS, SimpleNamespace(**settings), [], None)

    return call


def test_a_run_that_fits_or_that_the_estimate_does_not_know_is_left_alone(warn):
    assert warn(1.01) is None
    assert warn(0.1, device="cpu") is None and warn(0.1, world_size=2) is None and warn(0.1, use_vllm=True) is None


def test_a_run_that_may_not_fit_is_warned_with_flags_to_turn(warn):
    text = warn(0.9)
    assert text.startswith("warning: toy is estimated") and "Card has" in text and "--micro_batch 2" in text


def test_a_run_that_cannot_fit_is_refused_with_the_same_advice(warn):
    with pytest.raises(UserError, match="Card has .*--micro_batch 2"):
        warn(0.6)
