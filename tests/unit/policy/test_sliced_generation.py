"""Sampling in slices: the same completions and features as all at once where nothing is drawn."""

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from policy import stages as staged_generation
from policy.load import load_policy
from policy.slices import in_slices
from tests.unit.policy.test_capture import FeatureReader
from tests.unit.policy.test_staged_generation import completions_of
from training.run_options import RunConfig


def test_each_call_gets_the_rows_of_its_slice_in_order():
    asked = []

    def generate(rows, ids, most):
        asked.append((list(rows), most))
        return [row + [most] for row in ids]

    found = in_slices(generate, 2)([4, 7, 9], [[1], [2], [3]], 5)
    assert found == [[1, 5], [2, 5], [3, 5]] and asked == [([4, 7], 5), ([9], 5)]


@pytest.mark.parametrize("stages", [True, False])
def test_greedy_slices_give_the_completions_and_features_of_all_at_once(trainer_factory, monkeypatch, stages):
    monkeypatch.setattr(staged_generation, "STAGE", 8)
    settings = {"policy": load_policy("tiny"), "max_completion_length": 24, "capture": True}
    trainer = trainer_factory([FeatureReader()], [WeightSchedule(1.0)], **settings)
    monkeypatch.setattr(type(trainer), "_samples_in_stages", stages)
    trainer.generation_config.do_sample = False
    rows = [trainer.train_dataset[number] for number in range(7)]
    found = []
    for size in (0, 3):
        trainer.sampling_batch = size
        completions = completions_of(trainer, rows)
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in completions], batch_first=True)
        mask = torch.arange(ids.size(1)) < torch.tensor([len(row) for row in completions])[:, None]
        found.append((completions, len(trainer._capture._stages), trainer._capture.features(ids, mask)))
    (whole, calls, features), (sliced, more_calls, of_slices) = found
    assert sliced == whole and more_calls > calls
    for name, values in features.items():
        torch.testing.assert_close(of_slices[name], values, atol=1e-4, rtol=1e-4)


def test_a_negative_slice_is_refused(tmp_path):
    with pytest.raises(UserError, match="--sampling_batch=-1"):
        RunConfig(output_dir=str(tmp_path), sampling_batch=-1, use_cpu=True, bf16=False)
