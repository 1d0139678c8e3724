"""By which text memories look problems up: the last user message, or the question where the encoder cuts that off."""

import pytest

from intrinsic.knn_memory import MemoryR
from intrinsic.rarity import Rarity
from intrinsic.shuffle import Shuffle
from tests.toys import stub_encode
from training.run_options import RunConfig
from training.trainer import IntrinsicGRPOTrainer

SCHEMA = "CREATE TABLE city (name TEXT, people INTEGER, land TEXT);"


class Encoder:
    """Vectors that depend on the first ``limit`` characters of a text alone."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, texts):
        return stub_encode([text[: self.limit] for text in texts])

    def count_cut(self, texts):
        return sum(len(text) > self.limit for text in texts)


def rows(**without):
    made = []
    for number in range(4):
        question = f"How many cities have more than {number} people?"
        made.append({"prompt": [{"role": "user", "content": f"{SCHEMA}\n\n{question}"}], "question": question})
    return [{name: value for name, value in row.items() if name not in without} for row in made]


@pytest.fixture
def trained(tmp_path, caplog):
    """(keys of the last rollout, its stored vectors, what was said) of a step of ``knn`` with `Encoder`."""

    def trained(limit, data, bonus=None):
        def correctness(completions, **columns):
            return [1.0] * len(completions)

        sizes = {"bs": 2, "num_generations": 2, "L": 4, "max_steps": 1, "disable_tqdm": True, "save_strategy": "no"}
        args = RunConfig(output_dir=str(tmp_path), use_cpu=True, shuffle_dataset=False, report_to=["none"], **sizes)
        memory = bonus or MemoryR()
        trainer = IntrinsicGRPOTrainer("tiny", correctness, args, data, bonuses=memory, encode=Encoder(limit))
        trainer.train()
        vectors = memory.embed(trainer._rollout).keys if isinstance(memory, MemoryR) else None
        return trainer._rollout.keys, vectors, caplog.text

    return trained


def test_a_message_that_the_encoder_reads_whole_is_the_key(trained):
    data = rows()
    keys, _, said = trained(1000, data)
    assert keys == [row["prompt"][0]["content"] for row in data[:2] for _ in range(2)] and "cuts off" not in said


def test_questions_behind_a_schema_that_fills_the_encoder_are_told_apart(trained):
    data = rows()
    keys, vectors, said = trained(50, data)
    assert keys == [row["question"] for row in data[:2] for _ in range(2)]
    assert not vectors[0].equal(vectors[2])
    assert "cuts off 4 of the 4 different last user messages" in said and "by the column question instead\n" in said


def test_what_is_cut_for_lack_of_a_question_is_named(trained):
    keys, vectors, said = trained(50, rows(question=None))
    assert vectors[0].equal(vectors[2]) and keys[0] != keys[2]
    assert "cuts off 4 of the 4 different last user messages" in said and "give the rows a column question" in said


def test_questions_that_are_cut_themselves_are_counted(trained):
    _, _, said = trained(30, rows())
    assert "by the column question instead, of which 4 of 4 are cut off too" in said


@pytest.mark.parametrize("limit", [50, 1000])
def test_controls_of_a_memory_look_up_alike(limit, trained):
    keys, _, said = trained(limit, rows(), Shuffle(MemoryR()))
    assert (SCHEMA in keys[0]) == (limit == 1000) == ("cuts off" not in said)


def test_a_bonus_that_looks_nothing_up_says_nothing(trained):
    _, _, said = trained(50, rows(), Rarity(partition="embedding", rule="darling"))
    assert "cuts off" not in said
