"""Which rows validate and which train: always the same ones, by their questions, and no question does both."""

import pytest
from datasets import Dataset

from common.errors import UserError
from tasks.validation_split import draw, first_by_hash, for_traces, set_aside, without

ROWS = Dataset.from_list([{"question": f"Double of {number}?", "number": number} for number in range(20)])
ORDER = [13, 0, 1, 3, 10, 16, 7, 9, 12, 8, 11, 4, 18, 15, 19, 5, 2, 14, 6, 17]


def numbers(rows):
    return list(rows["number"])


def test_the_order_hangs_on_the_questions_alone_and_traces_take_it_from_its_end():
    assert numbers(first_by_hash(ROWS, 99)) == ORDER
    assert numbers(first_by_hash(ROWS.select(range(19, -1, -1)), 3)) == ORDER[:3]
    assert numbers(for_traces(ROWS, 3)) == ORDER[:-4:-1] and len(for_traces(ROWS, 0)) == 20


@pytest.mark.parametrize(("rows", "asked", "count"), [(20, 3, 3), (20, 512, 4), (9, 5, 1), (1, 5, 1)])
def test_a_fifth_of_the_rows_is_set_aside_at_most_and_one_at_least(rows, asked, count):
    assert len(set_aside(ROWS.select(range(rows)), asked)) == count
    assert numbers(set_aside(ROWS, 4)) == ORDER[:4]


def test_a_validation_question_is_not_trained_on():
    twice = Dataset.from_list([*ROWS, *ROWS])
    assert numbers(without(twice, ["Double of 3?"])) == [number for number in [*range(20)] * 2 if number != 3]
    with pytest.raises(UserError, match="all 20 training problems are validation problems too"):
        without(ROWS, ROWS["question"])


def test_the_seed_draws_the_rows():
    assert numbers(draw(ROWS, 5, seed=3)) == [16, 12, 18, 8, 3]
    assert sorted(numbers(draw(ROWS, 99, seed=3))) == list(range(20))
