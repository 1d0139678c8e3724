"""The small world of SQL: same seed same problems, right golds, slips that run, splits by template, bad input."""

import re
from dataclasses import replace
from itertools import combinations_with_replacement, islice, product
from pathlib import Path
from random import Random

import pytest
import yaml

from common.errors import UserError
from evaluation.options import EvalOptions
from evaluation.tasks import TASKS, load_rows
from rewards.sql.grader import CONTINUES, RAN, SqlReward, grade_sql
from tasks.sql.options import SqlOptions, load_problems
from tasks.sql.tiny import problems
from tasks.sql.tiny.problems import NAME, SPLITS, add_prompts, draw_queries, generate
from tasks.sql.tiny.query import AGGREGATES, CONDITIONS, CONNECTIVES, HEADS, Condition, Query, changed
from tasks.sql.tiny.traces import TraceOptions, _written, traces
from tests.processes import ROOT


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "cache_folder", lambda: str(folder))
        problems.databases.cache_clear()
        yield
    problems.databases.cache_clear()


def condition_of(kind: str, rng: Random) -> Condition:
    return next(drawn for drawn in iter(lambda: Condition.drawn(rng), None) if drawn.kind == kind)


def drawn(count: int, seed: int = 0) -> list[Query]:
    rng = Random(seed)
    return [Query.drawn(rng) for _ in range(count)]


def test_the_seed_decides_the_questions_and_nothing_the_databases():
    first, again, other = (generate(30, "train", seed, 2) for seed in (0, 0, 1))
    assert first[:] == again[:] and first["question"] != other["question"]
    contents = [Path(path).read_bytes() for path in problems.databases()]
    assert len(set(contents)) == problems.DATABASES
    problems.databases.cache_clear()
    assert [Path(path).read_bytes() for path in problems.databases()] == contents


def test_a_gold_of_every_template_is_right_however_it_is_written():
    rng, paths, judged = Random(1), problems.databases(), set()
    heads = [(head, aggregate) for head in HEADS for aggregate in (AGGREGATES if head == "aggregate" else ["MAX"])]
    kinds = [(), *((kind,) for kind in CONDITIONS), *combinations_with_replacement(CONDITIONS, 2)]
    for (head, aggregate), wanted, connective in product(heads, kinds, CONNECTIVES):
        for _ in range(20):  # few questions on several items sold in one city have an answer
            conditions = tuple(condition_of(kind, rng) for kind in wanted)
            drawn = replace(Query.drawn(rng), head=head, aggregate=aggregate, number=2)
            query = replace(drawn, conditions=conditions, connective=connective)
            row = problems._row(query, query.words(), paths, 2, "one")
            if row is not None:
                break
        else:
            continue
        judged.add(query.template)
        for text in (query.sql(), query.sql(rng)):
            assert grade_sql(text, row | {CONTINUES: True}).strict, (query.words(), text)
    assert len(judged) > 455, "of 13 heads x (none, one, or a pair of 5 conditions joined in two ways) = 468"


def test_a_sorted_gold_has_its_order_asked_for():
    rows = [row | {CONTINUES: True} for row in generate(200, "train", 0, 1) if row["ordered"] and row["rows"] > 2]
    turned = [re.sub(r"item\.id( LIMIT \d)?$", r"item.id DESC\1", row["gold"]) for row in rows]
    verdicts = {grade_sql(text, row).verdict for text, row in zip(turned, rows, strict=True)}
    assert {"correct", "wrong"} <= verdicts, "the id breaks ties, and there are some"
    assert all(sum(groups) for row in rows for groups in row["tie_groups"][:1])


def test_slips_run_and_are_seldom_right_and_some_by_accident_alone():
    rng, paths, verdicts = Random(2), problems.databases(), []
    for query in islice(draw_queries("train", rng), 400):
        row = problems._row(query, query.words(), paths, 3, "one")
        slip = changed(query, rng)
        assert slip != query
        if row is not None:
            verdicts.append(grade_sql(slip.sql(rng), row | {CONTINUES: True}).verdict)
    assert set(verdicts) == {*RAN}
    assert verdicts.count("wrong") > verdicts.count("accidental") > len(verdicts) / 20


def test_no_template_is_in_two_splits_and_training_has_every_part():
    of_split = {split: {query.template for query in islice(draw_queries(split, Random(0)), 1_500)} for split in SPLITS}
    assert not any(of_split[a] & of_split[b] for a in SPLITS for b in SPLITS if a < b)
    assert min(map(len, of_split.values())) > 50
    train = " ".join(of_split["train"])
    assert all(part in train for part in (*CONDITIONS, *HEADS[:2], *HEADS[3:], "MAX", "MIN", "AVG", "SUM"))
    assert all(f" {word} " in train for word in CONNECTIVES)
    bare = {query.template for query in drawn(1_500) if not query.conditions}
    assert len(bare) == 13 and bare <= of_split["train"]
    told = {row["prompt"].partition("\n")[0] for row in islice(traces(0.5, 3), 3_000)}
    held_out = {
        query.words() for split in ("validation", "test") for query in islice(draw_queries(split, Random(1)), 1_000)
    }
    assert not told & held_out


def test_traces_are_right_as_often_as_asked():
    rng = Random(0)
    for share in (0.0, 0.5, 1.0):
        right = sum(_written(query, share, rng) == query for query in drawn(400))
        assert abs(right - 400 * share) < 40
    rows = list(islice(traces(1.0, 0), 50))
    assert rows == list(islice(traces(1.0, 0), 50)) != list(islice(traces(1.0, 1), 50))
    assert all(row["prompt"].endswith("\nSQL:") and row["completion"].startswith(" SELECT") for row in rows)


def test_training_and_evaluation_ask_the_same_way_of_other_templates():
    options = SqlOptions(data=NAME, prompt_type="plain", train_problems=20)
    train, validation = load_problems(options, 10, True, seed=0)
    assert len(train) == 20 and len(validation) == 10 and len(train[0]["databases"]) == 4
    columns = {name: train[name] for name in train.column_names if name != "prompt"}
    assert SqlReward()(train["prompt"], [f" {gold}" for gold in train["gold"]], **columns) == [1.0] * 20
    assert load_problems(options, 10, False, seed=0)[1] is None
    shown = add_prompts(validation.select([0]), "reasoning")[0]["prompt"][1]["content"]
    assert "CREATE TABLE item" in shown and shown.endswith(validation[0]["question"])
    task = TASKS[NAME]
    rows = load_rows(task, EvalOptions(task=NAME, limit=5, hidden_databases=2))
    assert len(rows) == 5 and len(rows[0]["databases"]) == 3
    assert task.add_prompts(rows, "plain", 0, 0)[0]["prompt"] == f"{rows[0]['question']}\nSQL:"


def test_its_settings_leave_none_of_the_batch_to_the_defaults_of_larger_policies():
    own, defaults = (yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()) for name in ("sql_world", "sql"))
    assert defaults.keys() - own.keys() == {"nepochs"} and own["max_steps"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generate(1, "dev", 0, 1), "--split='dev' is no split of sql_tiny; use one of train, validation, test"),
        (lambda: generate(1, "train", 0, 256), "--hidden_databases=256: sql_tiny has 256 databases; use 0 to 255"),
        (lambda: SqlOptions(data=NAME, databases="d"), "--databases='d': --data=sql_tiny makes its own"),
        (lambda: SqlOptions(data=NAME, split="more"), "--split='more': --data=sql_tiny makes its own"),
        (
            lambda: load_rows(TASKS[NAME], EvalOptions(task=NAME, data="spider")),
            "--data='spider': sql_tiny makes its own questions; leave it out",
        ),
        (
            lambda: load_rows(TASKS[NAME], EvalOptions(task=NAME, databases="d")),
            "--databases='d': sql_tiny makes its own",
        ),
        (
            lambda: TraceOptions(output="a.jsonl", right_share=1.5),
            r"--right_share=1.5 must be at least 0 and at most 1",
        ),
        (lambda: TraceOptions(output="a.jsonl", n=0), "--n=0 must be at least 1"),
        (lambda: add_prompts(generate(1, "train", 0, 0), "plain", 2), "--num_shots=2: SQL is asked without"),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_more_questions_than_there_are_is_said(monkeypatch):
    monkeypatch.setattr(problems, "_MAX_FRUITLESS_DRAWS", 3)
    monkeypatch.setattr(problems, "draw_queries", lambda split, rng: iter([Query.drawn(Random(0))] * 9))
    with pytest.raises(UserError, match="sql_tiny has no 5 questions of split 'train', only"):
        generate(5, "train", 0, 0)
