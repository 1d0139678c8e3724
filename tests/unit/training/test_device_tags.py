"""Every bonus in all its ways on tensors that claim to be on a GPU: score, learn, save, load, go on; and the tags."""

from dataclasses import fields

import pytest
import torch

from common.state import load_state, save_state
from intrinsic import REGISTRY, build_bonuses
from intrinsic.metrics import score_metrics, share_metrics
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline
from tests.device_tags import CUDA, DeviceTags, claim, claimed
from tests.equivalence.cases import CASES, FAST
from tests.toys import make_rollout, stub_encode

TEXTS = ["<think>\n1+2=3\n</think>", "<think>\n2*3=6\n</think>", "4", "5-4=1", "(7-3)*2=8", "", "9/3=3", "8+8=16"]
CORRECT = [1, 0, 0, 1, 0, 0, 1, 0]
QUESTIONS = ["first"] * 4 + ["second"] * 4
ANSWERS = ["3", "6", "4", None, "8", None, "3", "16"]
GROUP = 4
WAYS = (
    {name: FAST | {"use_ir": name} for name in REGISTRY}
    | CASES
    | {
        name: FAST | flags
        for name, flags in {
            "cfn pretrained": {"use_ir": "cfn", "cfn_pretrain": 1},
            "knn+ legacy": {"use_ir": "knn+", "memory_legacy": True},
            "rnd reference, whole groups": {"use_ir": "rnd", "rnd_mode": "reference", "rnd_center": False},
            "outcome constant": {"use_ir": "outcome", "outcome_baseline": "constant"},
            "repexp projected": {"use_ir": "repexp", "repexp_dim": 4, "repexp_features": "centered"},
            "ltree of trees": {"use_ir": "ltree", "ltree_form": "tree"},
            "entropy of all": {"use_ir": "entropy", "entropy_mode": "total"},
            "shuffle:cfn": {"use_ir": "shuffle:cfn"},
            "shuffle:rnd": {"use_ir": "shuffle:rnd"},
        }.items()
    }
)


def rollout_on_gpu(step):
    texts = [f"{text} {step}" if text else text for text in TEXTS]
    rollout = make_rollout(
        texts,
        CORRECT,
        QUESTIONS,
        num_generations=GROUP,
        step=step,
        answers=list(ANSWERS),
        encode=lambda texts: claim(stub_encode(texts)),
        decode=lambda rows: [" ".join(map(str, row)) for row in rows],
    )
    claim([getattr(rollout, field.name) for field in fields(rollout)])
    return rollout


def learn_from(pipeline, step):
    """What the trainer does with a generation batch; the tensors it goes on with."""
    rollout = rollout_on_gpu(step)
    scored = pipeline.score(rollout)
    score_metrics(scored, rollout)
    columns = pipeline.reward_values(scored, GROUP)
    advantages = claim(torch.randn(len(rollout)))
    joined = pipeline.join(advantages, scored, rollout)
    if joined is not advantages:
        share_metrics("bonus", advantages, joined, rollout)
    pipeline.update(rollout)
    return [joined, *columns]


@pytest.mark.parametrize("way", WAYS)
def test_a_bonus_stays_on_the_rollouts_device_and_goes_on_there_after_loading(way, tmp_path):
    options = IntrinsicOptions(**WAYS[way])
    with DeviceTags() as tags:
        pipeline = BonusPipeline(build_bonuses(options), options.schedules())
        results = [result for step in (2, 3) for result in learn_from(pipeline, step)]
        save_state(pipeline.state_dict(), tmp_path)
        resumed = BonusPipeline(build_bonuses(options), options.schedules())
        resumed.load_state_dict(load_state(tmp_path))
        results += [result for step in (4, 5) for result in learn_from(resumed, step)]
    assert tags.mixes == []
    assert {claimed(result) for result in results} == {CUDA}


@pytest.mark.parametrize(
    "call",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there.long()],
        lambda here, there: there.numpy(),
        lambda here, there: here * there.sum(),
        lambda here, there: there.__setitem__(torch.tensor([0]), here[:1]),
        lambda here, there: torch.multinomial(there, 1, generator=torch.Generator()),
        lambda here, there: torch.rand(2, device="cuda", generator=torch.Generator()),
        lambda here, there: torch.nn.Linear(3, 1)(there),
    ],
)
def test_what_cuda_refuses_is_noted(call):
    with DeviceTags() as tags:
        call(torch.ones(3), claim(torch.ones(3)))
    assert len(tags.mixes) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda here, there: there + here[0],
        lambda here, there: there[here.long()],
        lambda here, there: there + here.to(there.device),
        lambda here, there: there + here.to(there),
        lambda here, there: here + there.cpu(),
        lambda here, there: there.copy_(here),
        lambda here, there: there.__setitem__(0, here[0]),
        lambda here, there: there + torch.ones(3, device=there.device),
        lambda here, there: there + there.new_zeros(3).view(3),
        lambda here, there: torch.nn.Linear(3, 1).to("cuda")(there.detach()),
    ],
)
def test_what_cuda_takes_is_not_noted(call):
    with DeviceTags() as tags:
        call(torch.ones(3), claim(torch.ones(3)))
    assert tags.mixes == []


def test_a_gradient_and_a_moved_module_are_where_their_weights_are():
    layer = torch.nn.Linear(3, 1)
    with DeviceTags() as tags:
        layer.to("cuda:0")
        optimizer = torch.optim.AdamW(layer.parameters())
        layer(claim(torch.ones(2, 3))).sum().backward()
        optimizer.step()
        assert layer.weight.device == layer.weight.grad.device == CUDA
        assert layer.to("cpu").weight.device == torch.device("cpu")
    assert tags.mixes == []
