"""The copy of the initial policy: the same features, in less memory, on the device only while it is read."""

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict

from policy.features import FeaturePass
from policy.frozen import KEPT, FrozenPolicy, inner_linear_layers, keep_adapter, weights_on
from policy.load import load_policy
from policy.padding import pad_tokens
from policy.precision import Precision

FLOAT32, BFLOAT16 = Precision(torch.float32, "cpu"), Precision(torch.bfloat16, "cpu")


def tokens():
    prompt_ids, prompt_mask = pad_tokens([[5, 6, 7, 8], [9, 10]], "left", 0, "cpu")
    completion_ids, completion_mask = pad_tokens([[11, 12], [13, 14, 15, 16, 17]], "right", 0, "cpu")
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return dict(zip(names, (prompt_ids, prompt_mask, completion_ids, completion_mask), strict=True))


def frozen_copy(precision):
    policy = load_policy("tiny")
    frozen = FrozenPolicy(policy, has_reference=False, uses_adapter=False, cast=precision.cast)
    frozen.attach(policy, None, 1.0, 2, "cpu", precision.autocast)
    return frozen


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("names", [{"frozen_hidden"}, {"frozen_mean_hidden", "frozen_self_certainty"}])
def test_features_are_bit_for_bit_those_of_the_whole_float32_copy(precision, names):
    frozen = frozen_copy(precision)
    found = frozen(tokens(), names)
    whole = frozen_copy(FLOAT32)
    whole._autocast = precision.autocast
    expected = whole(tokens(), names)
    assert found.keys() == names
    for name in names:
        is_rounded = precision is BFLOAT16 and name == "frozen_hidden"
        assert found[name].dtype == (torch.bfloat16 if is_rounded else torch.float32) and found[name].abs().max() > 0
        assert torch.equal(found[name], expected[name])


def test_copy_holds_linear_layers_in_the_precision_of_autocast_and_nothing_else():
    model = frozen_copy(BFLOAT16)._copy
    assert {value.dtype for layer in inner_linear_layers(model) for value in layer.parameters()} == {torch.bfloat16}
    cast = {id(value) for layer in inner_linear_layers(model) for value in layer.parameters()}
    others = [value for value in model.parameters() if id(value) not in cast]
    assert {value.dtype for value in others} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert {value.dtype for value in frozen_copy(FLOAT32)._copy.parameters()} == {torch.float32}


def test_linear_layers_are_never_copied_in_float32(monkeypatch):
    policy = load_policy("tiny")
    inner = {id(value) for layer in inner_linear_layers(policy) for value in layer.parameters()}
    copied = []
    copy_of = torch.nn.Parameter.__deepcopy__
    monkeypatch.setattr(
        torch.nn.Parameter, "__deepcopy__", lambda self, memo: copied.append(id(self)) or copy_of(self, memo)
    )
    FrozenPolicy(policy, has_reference=False, uses_adapter=False, cast=torch.bfloat16)
    assert copied and not inner & set(copied)


def test_weights_are_on_the_device_while_open_and_back_in_place_afterwards():
    model = load_policy("tiny")
    before = {name: value.data_ptr() for name, value in model.named_parameters()}
    # Another type stands in for another device: both go through Tensor.to.
    with pytest.raises(KeyError), weights_on(model, torch.float64):
        assert {value.dtype for value in model.parameters()} == {torch.float64}
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        raise KeyError("a pass that fails")
    assert {name: value.data_ptr() for name, value in model.named_parameters()} == before


def test_states_alone_take_no_output_head():
    model = load_policy("tiny")
    with_head = FeaturePass(frozen_copy(FLOAT32)._copy, 1.0, 2)
    both = with_head(**tokens(), autocast=nullcontext, names={"hidden", "logps"})
    model.get_output_embeddings().register_forward_hook(lambda *_: pytest.fail("the head ran"))
    model.forward = lambda **_: pytest.fail("the whole policy ran")
    states = FeaturePass(model, 1.0, 2)(**tokens(), autocast=nullcontext, names={"hidden"})
    assert states.keys() == {"hidden"} and torch.equal(states["hidden"], both["hidden"])


def test_an_adapter_is_kept_whole_embeddings_too_and_anew_by_a_later_trainer():
    adapter = LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], init_lora_weights=False)
    policy = get_peft_model(load_policy("tiny"), adapter)
    for _ in range(2):
        with torch.no_grad():
            for weight in get_peft_model_state_dict(policy).values():
                weight.add_(1.0)
        keep_adapter(policy)
        states = (get_peft_model_state_dict(policy, adapter_name=name) for name in ("default", KEPT))
        trained, kept = ({name: weight for name, weight in state.items() if "lora" in name} for state in states)
        assert any("embed_tokens" in name for name in kept) and trained.keys() == kept.keys()
        for name, weight in trained.items():
            assert torch.equal(weight, kept[name]) and weight.data_ptr() != kept[name].data_ptr()
