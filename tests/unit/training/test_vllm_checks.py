"""What cannot work with vLLM is refused before a model loads: its version, and flags that do not go together."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions
from training import vllm_checks
from training.problems import longest_prompt
from training.reference import check_reference
from training.run_options import RunConfig, RunOptions

PLAIN = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none", "num_generations": 4, "bs": 2}
NEEDS = ["torch==2.13.0", "transformers>=5.10.4", "aiohttp", 'transformers<1; extra == "old"']


@pytest.fixture
def install(monkeypatch):
    """Make a vLLM of the given version and requirements look installed, or none."""

    def pretend(vllm: str | None, needs=NEEDS):
        def found(name):
            if name == "vllm" and vllm is None:
                raise PackageNotFoundError(name)
            return vllm if name == "vllm" else version(name)

        requires = vllm_checks.requires
        monkeypatch.setattr(vllm_checks, "version", found)
        monkeypatch.setattr(vllm_checks, "requires", lambda name: needs if name == "vllm" else requires(name))

    return pretend


def config(**flags) -> RunConfig:
    return RunConfig(**PLAIN | {"use_vllm": True} | flags)


@pytest.mark.parametrize(
    ("vllm", "needs", "said"),
    [
        (None, NEEDS, "--use_vllm needs the package vllm, which is not installed"),
        ("0.31.0", ["transformers<5.18,>=5.10"], r"vllm 0.31.0 needs transformers<5.18,>=5.10, and transformers is 5"),
        ("0.30.0", ["torch==2.11.0"], "vllm 0.30.0 needs torch==2.11.0, and torch is 2.13"),
        ("0.33.0", NEEDS, "trl 1.16.0 needs vllm<=0.31.0,>=0.22.0, and vllm is 0.33.0"),
        ("0.21.1+cu129", NEEDS, "and vllm is 0.21.1"),
    ],
)
def test_no_vllm_or_one_that_cannot_work_is_one_sentence_with_what_to_install(vllm, needs, said, install):
    install(vllm, needs)
    with pytest.raises(UserError, match=said) as error:
        config()
    assert "pip install -r requirements-vllm.txt takes vllm 0.30.0" in str(error.value)
    assert config(use_vllm=False)


def test_the_pinned_vllm_works_and_a_build_for_another_cuda_too(install):
    for name in (vllm_checks._pinned(), "0.30.0+cu129"):
        install(name)
        assert config().use_vllm


REFUSED = [
    ({"vllm_mode": "remote"}, "--vllm_mode='remote' is unknown; use one of colocate, server"),
    ({"vllm_importance_sampling_mode": "token"}, "--vllm_importance_sampling_mode='token' .* token_truncate"),
    ({"loss_type": "vespo"}, "--vllm_importance_sampling_mode=sequence_mask .* token_mask"),
    ({"vllm_gpu_memory_utilization": 1.5}, "--vllm_gpu_memory_utilization=1.5 must be above 0 and below 1"),
    ({"vllm_tensor_parallel_size": 2}, "--vllm_tensor_parallel_size=2 does not divide the 1 processes"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED, ids=lambda value: "" if isinstance(value, str) else str(value))
def test_flags_that_cannot_work_with_vllm_are_refused(flags, said, install):
    install("0.30.0")
    with pytest.raises(UserError, match=said):
        config(**flags)
    assert config(**flags | {"use_vllm": False})


def test_prompts_leave_room_in_the_context_that_a_colocated_vllm_is_given(install):
    install("0.30.0")
    given = {"L": 20, "vllm_max_model_length": 100}
    assert longest_prompt(RunOptions(), config(**given)) == 80
    assert longest_prompt(RunOptions(), config(**given, vllm_mode="server")) == 512
    assert longest_prompt(RunOptions(), config(**given, use_vllm=False)) == 512
    with pytest.raises(UserError, match="--vllm_max_model_length=20 leaves no room for a prompt beside --L=20"):
        longest_prompt(RunOptions(), config(L=20, vllm_max_model_length=20))


MOVED = [
    ({"use_ir": "cfn"}, "--use_ir=cfn reads features"),
    ({"use_ir": "knn+,rnd"}, "--use_ir=rnd reads features"),
    ({"use_ir": "sc", "sc_annotator": "offline"}, "--use_ir=sc reads features"),
    ({"use_ir": "repexp", "repexp_model": "initial"}, "--use_ir=repexp reads features"),
    ({"use_ir": "shuffle:rnd"}, "--use_ir=shuffle:rnd reads features"),
]


@pytest.mark.parametrize(("intrinsic", "said"), MOVED, ids=str)
def test_a_reference_that_moves_is_refused_for_bonuses_that_read_it_as_the_initial_policy(intrinsic, said):
    bonuses = build_bonuses(IntrinsicOptions(**intrinsic))
    with pytest.raises(UserError, match=f"--sync_ref_model .* {said}"):
        check_reference(bonuses, RunConfig(**PLAIN, sync_ref_model=True, beta=0.04), uses_adapter=False)
    check_reference(bonuses, RunConfig(**PLAIN, beta=0.04), uses_adapter=False)


def test_a_reference_that_moves_needs_one_and_no_adapter():
    moving = RunConfig(**PLAIN, sync_ref_model=True, beta=0.04)
    check_reference(build_bonuses(IntrinsicOptions(use_ir="sc")), moving, uses_adapter=False)
    with pytest.raises(UserError, match="--beta=0 has none; set --beta"):
        check_reference([], RunConfig(**PLAIN, sync_ref_model=True, beta=0.0), uses_adapter=False)
    with pytest.raises(UserError, match="--lora is the policy without its adapter"):
        check_reference([], moving, uses_adapter=True)
