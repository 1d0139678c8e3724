"""Padding completions to a multiple changes no bonus and no advantage, wherever features come from."""

import pytest

from tests.compare import assert_close
from tests.equivalence.scripted import ScriptedTrainer, build

CASES = {
    "states of the reference model's pass": ({"use_ir": "cfn", "cfn_warmup": 1}, {"beta": 0.04}),
    "its states, error of rnd": ({"use_ir": "rnd"}, {"beta": 0.04}),
    "states of the copy": ({"use_ir": "cfn", "cfn_warmup": 1}, {}),
    "the policy's own pass, as with vLLM": ({"use_ir": "sc"}, {}),
    "both passes": ({"use_ir": "sc,rnd"}, {"beta": 0.04}),
    "a bonus per token": ({"use_ir": "entropy-adv"}, {}),
    "cfn per token": ({"use_ir": "cfn", "cfn_level": "token", "cfn_warmup": 1}, {"beta": 0.04}),
}


@pytest.mark.parametrize(("flags", "settings"), CASES.values(), ids=CASES.keys())
def test_padding_to_a_multiple_changes_nothing(flags, settings, tmp_path):
    records = []
    for multiple in (None, 16):
        trainer = build(
            flags, tmp_path, trainer_class=ScriptedTrainer, capture=False, pad_to_multiple_of=multiple, **settings
        )
        trainer.train()
        records.append(trainer.record)
    short, long = records
    for batch, padded in zip(short, long, strict=True):
        width = batch["advantages"].size(1)
        assert padded["advantages"].size(1) == 16 > width and not padded["advantages"][:, width:].any()
        padded["advantages"] = padded["advantages"][:, :width]
    assert_close(short, long)
