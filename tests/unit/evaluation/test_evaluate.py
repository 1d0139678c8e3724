"""Evaluation: training's random state is left alone, records can be judged again, and batches can be resumed."""

import copy
import json
import random

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from cli.parse import CONFIGS
from common.errors import UserError
from evaluation.checkpoint import (
    PartialRecords,
    count_beyond_context,
    evaluate_checkpoint,
    warn_beyond_context,
    weights_digest,
)
from evaluation.evaluate import HeldOut, HeldOutCallback, Pass, summarize_records
from evaluation.generate import Decoding, sample_batches, sample_completions
from evaluation.options import EvalOptions
from evaluation.tasks import COUNTDOWN_SPACES, checked_task, eval_task
from policy.load import load_policy, load_tokenizer
from rewards import answer as number
from rewards import countdown
from rewards.grade import Grade, is_false_claim
from tasks.code.options import CodeOptions
from tasks.sql.options import SqlOptions

SAMPLED, GREEDY = Decoding(2, 1.0, 6), Decoding(1, 0.0, 6)


@pytest.fixture(scope="module")
def policy():
    return load_policy("tiny"), load_tokenizer("tiny")


def rows_of(count):
    rows = [{"question": f"Numbers: {n} {n + 1}.", "gold": str(n)} for n in range(count)]
    return Dataset.from_list([row | {"prompt": [{"role": "user", "content": row["question"]}]} for row in rows])


def grade_length(text, row):
    """Right by the parity of the characters; strict where the length can be divided by four too."""
    medium = sum(map(ord, text)) % 2 == 0
    return Grade(medium and len(text) % 4 == 0, medium, True, str(len(text)), "correct" if medium else "wrong", False)


def held_out(folder, count=6):
    return HeldOut("toy", rows_of(count), grade_length, folder, [Pass("sampled", SAMPLED), Pass("greedy", GREEDY)], 0)


def test_report_holds_all_tiers_of_every_pass_and_one_record_per_completion(policy, tmp_path):
    report = held_out(tmp_path).evaluate(*policy, "before", step=3)
    assert json.loads((tmp_path / "before.json").read_text()) == report and report["step"] == 3
    assert len(report["records"]) == 6 * 2 + 6
    metrics = report["metrics"]
    sampled = [record for record in report["records"] if record["pass"] == "sampled"]
    assert metrics["accuracy"] == metrics["medium"]
    assert metrics["strict"]["mean"] == np.mean([record["strict"] for record in sampled])
    assert metrics["loose"]["mean"] == 1.0 and metrics["greedy/loose"]["mean"] == 1.0
    assert all(record["correct"] == record["medium"] for record in sampled)
    assert {record["medium"] for record in sampled} == {True, False}
    assert sampled[0]["gold"] == "0" and sampled[0]["prompt"] == "Numbers: 0 1."


def test_an_evaluation_of_the_first_policy_is_taken_from_a_run_that_made_the_same(policy, tmp_path, capsys):
    def of_run(name, temperature=1.0, seed=0, batch=256, **of):
        ways = [Pass("sampled", Decoding(2, temperature, 8))]
        folder = tmp_path / "runs" / name / "eval"
        return HeldOut("toy", rows_of(2), grade_length, folder, ways, seed, batch, {"weights": "a", "rows": [1], **of})

    made = of_run("first").evaluate(*policy, "before")
    others = [{"temperature": 0.5}, {"seed": 1}, {"batch": 8}, {"weights": "b"}, {"processes": 2}]
    for other in others:
        assert of_run("other", **other).take_from(tmp_path / "runs") is None, other
    nameless = of_run("nameless")
    nameless.of = None
    assert nameless.take_from(tmp_path / "runs") is None, "what is not known to be the same is not taken"
    damaged = tmp_path / "runs" / "damaged" / "eval" / "before.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    place = str(tmp_path / "runs" / "first" / "eval" / "before.json")
    same = of_run("same")
    taken = made | {"taken_from": place}
    assert same.take_from(tmp_path / "runs") == same.load("before") == taken
    assert f"passed over: {damaged}" in capsys.readouterr().out
    (tmp_path / "runs" / "first" / "eval" / "before.json").unlink()
    assert of_run("third").take_from(tmp_path / "runs")["taken_from"] == place, "the run that sampled it is named"


@pytest.mark.fault("X4")
def test_evaluation_leaves_random_states_and_mode_as_they_were(policy, tmp_path):
    model, tokenizer = policy
    model.train()
    # A state that no evaluation leaves behind.
    torch.manual_seed(1234)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    held_out(tmp_path).evaluate(model, tokenizer, "before")
    assert torch.equal(states[0], torch.get_rng_state()) and model.training
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_problem_with_more_samples_than_a_batch_is_sampled_in_parts(policy, monkeypatch):
    model, tokenizer = policy
    sizes, generate = [], type(model).generate
    monkeypatch.setattr(
        type(model),
        "generate",
        lambda self, input_ids, **asked: sizes.append(len(input_ids)) or generate(self, input_ids, **asked),
    )
    prompts = rows_of(2)["prompt"]
    parts = sample_completions(model, tokenizer, prompts, Decoding(5, 1.0, 6), batch_size=2)
    assert max(sizes) == 2 and [len(samples) for samples in parts] == [5, 5]
    assert len({sample.text for sample in parts[0]}) > 1
    greedy = [sample_completions(model, tokenizer, prompts, Decoding(5, 0.0, 6), batch_size=size) for size in (2, 256)]
    assert greedy[0] == greedy[1]


def test_same_seed_gives_the_same_samples_and_another_seed_others(policy):
    prompts = rows_of(6)["prompt"]
    first, again, other = (sample_completions(*policy, prompts, SAMPLED, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_batches_left_out_change_nothing_in_the_others(policy):
    prompts = rows_of(7)["prompt"]
    settings = {"batch_size": 4, "seed": 5}
    whole = list(sample_batches(*policy, prompts, SAMPLED, **settings))
    rest = list(sample_batches(*policy, prompts, SAMPLED, **settings, skip_batches=2))
    assert len(whole) == 4 and rest == whole[2:]
    assert sorted(index for indices, _ in whole for index in indices) == list(range(7))


def test_batches_of_equal_prompts_have_samples_of_their_own(policy):
    prompts = [rows_of(1)["prompt"][0]] * 8
    batches = [samples for _, samples in sample_batches(*policy, prompts, Decoding(1, 1.0, 12), batch_size=4)]
    assert len(batches) == 2 and batches[0] != batches[1]


def test_every_token_that_ends_a_turn_ends_the_completion(policy):
    model, tokenizer = policy
    prompts = rows_of(2)["prompt"]
    before = model.generation_config.eos_token_id
    (plain,), _ = sample_completions(model, tokenizer, prompts, GREEDY)
    first = tokenizer(plain.text, add_special_tokens=False)["input_ids"][0]
    try:
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
        (ended,), _ = sample_completions(model, tokenizer, prompts, GREEDY)
    finally:
        model.generation_config.eos_token_id = before
    assert plain.length > 1 and ended.length == 1 and not ended.truncated


def test_texts_get_the_special_tokens_that_training_gives_them_and_conversations_only_those_of_the_template(
    policy, monkeypatch
):
    model, tokenizer = policy[0], copy.deepcopy(policy[1])
    start = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.eos_token_id)]
    )
    generate, seen = model.generate, []
    monkeypatch.setattr(model, "generate", lambda **inputs: seen.append(inputs["input_ids"]) or generate(**inputs))
    sample_completions(model, tokenizer, ["Numbers: 1 2."], GREEDY)
    sample_completions(model, tokenizer, rows_of(1)["prompt"], GREEDY)
    assert seen[0][0].tolist() == tokenizer("Numbers: 1 2.")["input_ids"]
    assert seen[0][0, 0] == tokenizer.eos_token_id and seen[1][0, 0] != tokenizer.eos_token_id


@pytest.mark.parametrize("decoding", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_decoding_is_ours_whatever_defaults_the_model_came_with(policy, decoding):
    model, tokenizer = policy
    prompts = rows_of(4)["prompt"]
    plain = sample_completions(model, tokenizer, prompts, decoding)
    config, model.generation_config = model.generation_config, copy.deepcopy(model.generation_config)
    try:
        model.generation_config.update(repetition_penalty=5.0, top_k=1, top_p=0.1, temperature=0.1, do_sample=True)
        assert sample_completions(model, tokenizer, prompts, decoding) == plain
    finally:
        model.generation_config = config


def record(problem, medium, answer, loose=None, verdict=None):
    verdict = verdict or ("correct" if medium else "wrong")
    loose = medium if loose is None else loose
    flags = {"strict": False, "medium": medium, "loose": loose, "well_formed": False}
    return {"id": problem, "answer": answer, "verdict": verdict, "length": 4, "truncated": False, **flags}


def test_majority_vote_counts_answers_at_their_place_and_where_there_is_none_those_of_the_loose_tier():
    # Two of three samples say 7, one of them without the tags; the third's tags say 8, whatever else it says.
    unplaced = record(0, False, "7", loose=True, verdict="no_answer")
    records = [record(0, True, "7"), unplaced, record(0, False, "8"), record(0, False, None)]
    metrics = summarize_records(records)
    assert metrics["maj@4"]["mean"] == 1.0 and metrics["accuracy"]["mean"] == 0.25
    assert metrics["pass@4"]["mean"] == 1.0 and metrics["loose"]["mean"] == 0.5


def test_each_part_has_an_accuracy_and_a_share_that_is_cut_off():
    parts = [("op 15-20", True), ("op 15-20", False), ("op 21-25", False), ("op 21-25", False)]
    records = [record(number, right, "7") | {"part": part} for number, (part, right) in enumerate(parts)]
    records[3]["truncated"] = True
    metrics = summarize_records(records)
    assert metrics["truncated/op 15-20"]["mean"] == 0.0 and metrics["truncated/op 21-25"]["mean"] == 0.5
    assert metrics["accuracy/op 15-20"]["mean"] == 0.5 and metrics["accuracy/op 21-25"]["mean"] == 0.0
    assert metrics["accuracy"]["mean"] == 0.25 and metrics["accuracy/op 15-20"]["n"] == 2
    assert not any(name.startswith("accuracy/") for name in summarize_records([record(0, True, "7")]))


@pytest.mark.parametrize("samples", [3, 16])
def test_pass_and_vote_of_all_samples_are_reported_whatever_their_number(samples):
    metrics = summarize_records([record(0, number == 0, str(number)) for number in range(samples)])
    assert metrics[f"pass@{samples}"]["mean"] == 1.0 and metrics["pass@1"]["mean"] == pytest.approx(1 / samples)
    assert metrics[f"maj@{samples}"]["mean"] == pytest.approx(1 / samples)


def test_shares_of_shape_and_truncation_are_over_completions():
    records = [record(0, False, None, verdict="multiple_answers"), record(1, False, None) | {"truncated": True}]
    metrics = summarize_records(records)
    assert metrics["multiple_answers"] == 0.5 and metrics["truncated"] == 0.5 and metrics["mean_length"] == 4


@pytest.mark.parametrize("verdicts", [number.Verdict, countdown.Verdict])
def test_every_wrong_answer_is_a_false_claim_and_no_answer_is_none(verdicts):
    claims = {str(verdict) for verdict in verdicts if is_false_claim(verdict)}
    assert {str(verdict) for verdict in verdicts} - claims == {"correct", "no_answer"} and len(claims) >= 3
    records = [record(place, False, None, verdict=str(verdict)) for place, verdict in enumerate(verdicts)]
    metrics = summarize_records(records)
    assert metrics["false_claims"]["mean"] == pytest.approx(len(claims) / len(verdicts))
    assert metrics["false_claims"]["n"] == len(verdicts) and metrics["false_claims"]["low"] > 0


def test_callback_evaluates_between_steps_and_hands_the_report_on(policy, tmp_path):
    from accelerate import Accelerator
    from transformers import TrainerControl, TrainerState

    reports = []
    callback = HeldOutCallback(held_out(tmp_path, 2), policy[1], 2, Accelerator(cpu=True), reports.append)
    for step in range(1, 7):
        callback.on_step_end(None, TrainerState(global_step=step, max_steps=6), TrainerControl(), model=policy[0])
    assert [report["step"] for report in reports] == [2, 4]
    assert (tmp_path / "step_000004.json").exists()


def evaluate_tiny(output, rows, grade=grade_length, **changes):
    settings = {"decoding": SAMPLED, "settings": {}, "batch_size": 4, "seed": 0} | changes
    return evaluate_checkpoint("tiny", "toy", rows, grade, output=output, **settings)


def test_interrupted_evaluation_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    rows, graded = rows_of(7), 0

    def stop_early(text, row):
        nonlocal graded
        graded += 1
        if graded > 9:
            raise KeyboardInterrupt
        return grade_length(text, row)

    with pytest.raises(KeyboardInterrupt):
        evaluate_tiny(tmp_path / "cut.json", rows, stop_early)
    partial = tmp_path / "cut.partial.jsonl"
    assert len(partial.read_text().splitlines()) == 1 + 2
    with partial.open("a") as stream:
        stream.write('[{"id": 3, "cut": ')
    calls = []
    resumed = evaluate_tiny(
        tmp_path / "cut.json", rows, lambda text, row: calls.append(text) or grade_length(text, row)
    )
    assert len(calls) == (7 - 4) * 2 and not partial.exists()
    whole = evaluate_tiny(tmp_path / "whole.json", rows)
    assert resumed["records"] == whole["records"] and resumed["metrics"] == whole["metrics"]


def test_begun_evaluation_with_other_settings_is_not_mixed_in(tmp_path):
    path = tmp_path / "run.partial.jsonl"
    PartialRecords(path, {"seed": 0}).add([{"id": 0}])
    assert PartialRecords(path, {"seed": 0}).batches == [[{"id": 0}]]
    with pytest.raises(UserError, match="other settings"):
        PartialRecords(path, {"seed": 1})
    assert PartialRecords(path, {"seed": 0}).batches == [[{"id": 0}]]


def test_begun_evaluation_in_another_precision_is_not_continued(tmp_path):
    def stop(text, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_tiny(tmp_path / "cut.json", rows_of(1), stop, dtype="float32")
    with pytest.raises(UserError, match="other settings"):
        evaluate_tiny(tmp_path / "cut.json", rows_of(1), dtype="bfloat16")


def test_prompts_that_leave_too_little_of_the_context_are_counted(policy, tmp_path, capsys):
    tokenizer = policy[1]
    prompts = [*rows_of(2)["prompt"], [{"role": "user", "content": "Numbers: 1 2. " * 20}]]
    length = len(tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True)["input_ids"])
    assert count_beyond_context(prompts, tokenizer, 8, length + 8) == 1
    assert count_beyond_context(prompts, tokenizer, 9, length + 8) == 3
    warn_beyond_context(prompts, tokenizer, 8, length + 8)
    assert "1 of 3 prompts leave less than 8 tokens in the policy's context of" in capsys.readouterr().out
    warn_beyond_context(prompts, tokenizer, 8, None)
    evaluate_tiny(tmp_path / "short.json", rows_of(2))
    assert "context" not in capsys.readouterr().out
    monstrous = Dataset.from_list([rows_of(1)[0] | {"prompt": "Numbers: 1 2. " * 200}])
    evaluate_tiny(tmp_path / "long.json", monstrous)
    assert "1 of 1 prompts leave less than 6 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        {"seed": 1},
        {"data": "a/test.jsonl"},
        {"data": "b/test.jsonl"},
        {"split": "train"},
        {"max_new_tokens": 9},
        {"top_p": 0.5},
        {"limit": 3},
        {"num_shots": 2},
        {"prompt_type": "plain"},
        {"temperature": 1.0},
        {"temperature": 1.0, "n": 4},
        {"model_name": "runs/a"},
        {"hidden_databases": 0},
        {"databases": "a/databases"},
        {"skip_bad_golds": True},
        {"schema_values": 0},
        {"sandbox": "process"},
        {"test_seconds": 9},
        {"show_tests": 0},
    ],
    ids=str,
)
def test_evaluations_with_other_flags_have_files_of_their_own(flags):
    others = [EvalOptions(), EvalOptions(data="c/test.jsonl"), EvalOptions(seed=2)]
    assert EvalOptions(**flags).output_path() not in [options.output_path() for options in others]


@pytest.mark.parametrize(("task", "flags"), [("gsm8k", {"hidden_databases": 0}), ("spider", {"show_tests": 2})])
def test_flags_of_other_tasks_are_refused(task, flags):
    (name,) = flags
    with pytest.raises(UserError, match=f"--{name}={flags[name]} is for .*, and not for --task={task}"):
        checked_task(EvalOptions(task=task, **flags))


def test_evaluation_asks_as_training_does_by_default():
    training = [SqlOptions().schema_values, CodeOptions().show_tests, CodeOptions().test_seconds]
    assert [EvalOptions().schema_values, EvalOptions().show_tests, EvalOptions().test_seconds] == training


def test_output_is_a_file_or_a_folder(tmp_path):
    name = EvalOptions().output_path().name
    assert EvalOptions(output=str(tmp_path)).output_path() == tmp_path / name
    assert EvalOptions(output=f"{tmp_path}/new/").output_path() == tmp_path / "new" / name
    assert EvalOptions(output=str(tmp_path / "x.json")).output_path() == tmp_path / "x.json"


def test_digest_follows_the_weights_not_the_path(tmp_path):
    model = load_policy("tiny")
    model.save_pretrained(tmp_path)
    first = weights_digest(str(tmp_path))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path)
    assert weights_digest(str(tmp_path)) != first


@pytest.mark.parametrize("split, config", [("tiny", "countdown_tiny"), ("full", "countdown")])
def test_generated_countdown_problems_are_those_that_training_sets_aside(split, config):
    trained = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    space = COUNTDOWN_SPACES[split]
    assert all(getattr(space, name) == trained[name] for name in ("min_numbers", "max_numbers", "max_number"))
    assert space.max_value == trained["max_value"]
    assert max(len(row["numbers"]) for row in eval_task("countdown").load("generate", split)) == space.max_numbers


@pytest.mark.parametrize("split, counts", [("2", {2}), ("3-4", {3, 4})])
def test_generated_countdown_problems_have_as_many_numbers_as_asked_for(split, counts):
    assert {len(row["numbers"]) for row in eval_task("countdown").load("generate", split)} == counts


@pytest.mark.parametrize("split", ["big", "1", "3-", "-3", "4-3", "7"])
def test_an_unknown_kind_of_generated_countdown_is_refused(split):
    with pytest.raises(UserError, match=f"--split='{split}'.* tiny or full, or 2 to 6 numbers"):
        eval_task("countdown").load("generate", split)


def test_flags_that_would_fail_after_the_policy_has_loaded_are_refused():
    for seed in (-1, 2**32, 2**64):
        with pytest.raises(UserError, match=f"--seed={seed} must be at least 0 and at most 4294967295"):
            EvalOptions(seed=seed)
    with pytest.raises(UserError, match="--chat_template_kwargs='.{80}' must be a JSON object"):
        EvalOptions(chat_template_kwargs="[" * 5000)
