"""The memory benchmark at toy size: it compares like with like, and its results are complete."""

import json
import sys

import pytest
import torch

from benchmarks import memory_scaling
from benchmarks.machine import caption, describe
from benchmarks.memory_reference import Contents, ReferenceMemory
from benchmarks.memory_scaling import Options, measure, plot, precisions, prompt_batch, table
from common.errors import UserError
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import MemoryBatch, exploit_reward, explore_reward, look_up
from tests.toys import stub_encode


def toy(**settings):
    sizes = {"generations": 4, "questions": 5, "responses": 3, "sizes": "9,30", "repeats": 2, "reward_repeats": 1}
    return Options(**sizes | settings)


@pytest.fixture(scope="module", autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def result():
    return measure(toy(), stub_encode)


@pytest.mark.parametrize("reward", [exploit_reward, explore_reward])
@pytest.mark.parametrize("k", [1, 3])
def test_the_reference_look_up_pays_what_ours_pays(reward, k):
    contents, queries = Contents.random(7, 4, 8, seed=1), Contents.random(1, 5, 8, seed=2)
    memory = EpisodicMemory(7, 4)
    contents.fill(memory)
    reference = ReferenceMemory(contents, k, 4, stub_encode)
    batch = MemoryBatch(["question"] * 5, queries.keys.expand(5, -1), queries.values[0], [None] * 5, list(range(5)))
    expected = [reference.look_up(queries.keys[0].numpy(), value.numpy(), reward) for value in queries.values[0]]
    torch.testing.assert_close(look_up(memory, reward, batch, k).values, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_reference_files_answers_under_their_question_up_to_its_capacity():
    reference = ReferenceMemory(Contents.random(2, 3, 8, seed=1), k=1, max_responses=3, encode=stub_encode)
    for answer in "abcd":
        reference.insert("new", answer)
    assert [len(rows) for rows in reference.values] == [3, 3, 3] and reference.index.ntotal == 3
    torch.testing.assert_close(torch.tensor(reference.values[2][0]), stub_encode(["b"])[0])
    assert reference.score("new", "d", explore_reward) == pytest.approx(0.0, abs=1e-5)
    assert reference.score("new", "a", explore_reward) > 1e-3


def test_both_sides_start_from_the_same_vectors_and_find_the_same_rewards(result):
    rows = [*result["reward"].values(), *result["look_up"]]
    assert len(rows) == 3 and all(0 <= row["difference"] < 1e-4 for row in rows)


def test_every_time_is_positive_and_sizes_are_those_asked_for(result):
    rows = [*result["reward"].values(), *result["look_up"]]
    assert all(value > 0 for row in rows for name, value in row.items() if name.endswith("_ms"))
    assert [row["stored"] for row in result["look_up"]] == [9, 30]
    assert [row["megabytes"] for row in result["look_up"]] == [4 * 8 * (9 + 3) / 1e6, 4 * 8 * (30 + 10) / 1e6]


def test_the_table_has_ratios_and_says_where_it_was_measured(result):
    result = json.loads(json.dumps(result))
    result["look_up"][0] |= {"ours_ms": 2.0, "reference_ms": 50.0}
    text = table(result)
    assert "| 2.00 | 50.00 | 25.0 |" in text
    assert sum(line.startswith("| float32 /") for line in text.splitlines()) == 1


def test_a_bfloat16_encoder_is_timed_in_both_precisions_each_against_its_own(result):
    class Encoder:
        bfloat16 = True

    encoders = precisions(Encoder())
    assert {name: encoder.bfloat16 for name, encoder in encoders.items()} == {"float32": False, "bfloat16": True}
    rewards = {"float32": {"ours_ms": 8.0, "reference_ms": 48.0, "difference": 1e-7}}
    rewards["bfloat16"] = {"ours_ms": 4.0, "reference_ms": 40.0, "difference": 1e-5}
    lines = table(result | {"reward": rewards}).splitlines()
    for precision, ratio in (("float32 / float32", 6.0), ("bfloat16 / bfloat16", 10.0), ("bfloat16 / float32", 12.0)):
        assert [line.split(" | ")[3] for line in lines if line.startswith(f"| {precision} |")] == [str(ratio)]


def test_the_batch_is_one_prompt_with_distinct_answers_of_about_120_words():
    batch = prompt_batch(Options(), stub_encode)
    words = [len(text.split()) for text in batch.reasonings]
    assert (
        len(set(batch.questions)) == 1 and len(set(batch.reasonings)) == 16 and 100 <= min(words) <= max(words) <= 140
    )
    assert 0 < batch.correct.mean() < 1


def test_main_writes_table_figures_and_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory_scaling, "build_encoder", lambda name, device: stub_encode)
    flags = {"generations": 2, "questions": 3, "responses": 2, "sizes": "4,8", "repeats": 1, "reward_repeats": 1}
    flags["output"] = tmp_path / "new" / "scaling"
    monkeypatch.setattr(sys, "argv", ["memory_scaling", *(f"--{name}={value}" for name, value in flags.items())])
    memory_scaling.main()
    assert (tmp_path / "new" / "scaling.md").read_text() in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "scaling.json").read_text())["options"]["sizes"] == "4,8"
    assert (tmp_path / "new" / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_needs_no_more_than_one_size(result, tmp_path):
    plot(result | {"look_up": result["look_up"][:1]}, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sizes": "10"}, "--sizes=10 .*--responses=3"), ({"sizes": "a"}, "--sizes='a'"), ({"k": 0}, "--k=0")],
)
def test_bad_sizes_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        toy(**settings)


def test_a_result_names_code_and_machine():
    machine = describe()
    assert machine["torch"] == torch.__version__ and machine["cores"] >= 1 and machine["cpu"]
    assert set(machine) >= {"commit", "date", "python", "transformers", "trl", "threads", "gpu"}
    assert "commit unknown" in caption(machine | {"commit": None})
