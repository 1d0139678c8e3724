"""Evaluate a policy on held-out rows: one generation pass per decoding, all tiers, intervals, per-item records."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from common.errors import UserError
from common.files import read_json, write_text
from common.sharding import whole_weights
from evaluation.against_base import against_base
from evaluation.approaches import approach_metrics, cover_metrics, distinct_metrics
from evaluation.choice import choice_metrics
from evaluation.generate import Decoding, Sample, sample_completions
from evaluation.metrics import KS, by_problem, mean_interval, summarize
from evaluation.sql import sql_metrics
from policy.chat import message_text
from rewards.answer import Verdict
from rewards.grade import TIERS, Grade, is_false_claim
from rewards.sql.grader import SqlVerdict

# Columns of a row that its question finds again: the tests of code, the databases of SQL and the ties on them.
UNRECORDED = ("test", "io", "helpers", "databases", "tie_groups")
BASE = "before"  # name of the evaluation that later ones of a run are held against
SEEDS_PER_PROCESS = 1_000_000  # more than a process ever has batches


@dataclass(frozen=True)
class Pass:
    """One way of decoding, by name."""

    name: str
    decoding: Decoding


class HeldOut:
    """A fixed held-out set with the settings of its evaluation.

    Args:
        task: name of the task, recorded in the report.
        rows: column ``prompt`` and whatever ``grade`` reads; a column ``part`` is reported part by part.
        grade: (completion text, row) -> `Grade`.
        folder: where reports are saved as ``<name>.json``.
        passes: the decodings; metrics of the first have no prefix, those of the others ``<pass name>/``.
        seed: of the samples; the same seed gives the same samples for the same policy and number of processes.
        batch_size: completions generated at once.
        of: plain JSON, all else that the samples of the first policy depend on; recorded in ``before.json``.
    """

    def __init__(
        self,
        task: str,
        rows: Dataset,
        grade: Callable[[str, dict], Grade],
        folder: Path,
        passes: Sequence[Pass],
        seed: int,
        batch_size: int = 256,
        of: dict | None = None,
    ):
        self.of = of
        self.task, self.rows, self.grade, self.folder = task, rows, grade, Path(folder)
        self.passes, self.seed, self.batch_size = list(passes), seed, batch_size

    def evaluate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        step: int = 0,
        accelerator: Accelerator | None = None,
    ) -> dict:
        """Sample, grade, summarise and save ``<name>.json``; every process returns the report.

        Where ``before.json`` is there, the report holds `against_base` too, that of the main process.
        With an ``accelerator`` the policy runs under its autocast, as in training. On several processes each takes
        every n-th problem, and the main one saves.
        """
        records, metrics = [], {}
        for index, way in enumerate(self.passes):
            with whole_weights(model):
                found = self._records(model, tokenizer, way, accelerator)
            prefix = f"{way.name}/" if index else ""
            metrics |= {prefix + key: value for key, value in summarize_records(found).items()}
            records += found
        report = {
            "name": name,
            "step": step,
            "task": self.task,
            "problems": len(self.rows),
            "passes": [asdict(way) for way in self.passes],
            "seed": self.seed,
            **self._first(name),
            "metrics": metrics,
            "records": records,
        }
        if accelerator is None or accelerator.is_main_process:
            base = self.load(BASE) if name != BASE else None
            if base is not None:
                report["against_base"] = against_base(base, report)
            save_report(report, self.folder / f"{name}.json")
        return report

    def _records(self, model, tokenizer, way: Pass, accelerator: Accelerator | None) -> list[dict]:
        rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        rows = list(self.rows)
        indices = range(rank, len(rows), world)
        prompts = [rows[index]["prompt"] for index in indices]
        settings = {"seed": self.seed + SEEDS_PER_PROCESS * rank, "batch_size": self.batch_size}
        if accelerator:
            settings["autocast"] = accelerator.autocast
        samples = sample_completions(model, tokenizer, prompts, way.decoding, **settings)
        records = [
            record_of(rows[index], self.grade, sample, {"id": index, "pass": way.name, "sample": number})
            for index, found in zip(indices, samples, strict=True)
            for number, sample in enumerate(found)
        ]
        if world > 1:
            records = sorted(gather_object(records), key=lambda record: (record["id"], record["sample"]))
        return records

    def _first(self, name: str) -> dict:
        """What tells an evaluation of the first policy from that of another, where that is known."""
        return {"of": self.of, "batch_size": self.batch_size} if name == BASE and self.of else {}

    def take_from(self, runs: Path) -> dict | None:
        """The first policy's evaluation of a run folder in ``runs`` that has made the same; None where none has.

        The same: problems, decoding, seed, batch and all of ``of``. ``taken_from`` in it says where it is from.
        It is this run's ``before.json`` from then on. A file that cannot be read is named and passed over.
        """
        expected = {"task": self.task, "passes": [asdict(way) for way in self.passes], "seed": self.seed}
        expected |= self._first(BASE)
        for path in sorted(runs.glob(f"*/{self.folder.name}/{BASE}.json")):
            try:
                report = read_json(path, "move it away")
            except UserError as error:
                print(f"passed over: {error}", flush=True)
                continue
            if path.parent != self.folder and self.of and {name: report.get(name) for name in expected} == expected:
                report.setdefault("taken_from", str(path))
                save_report(report, self.folder / f"{BASE}.json")
                return report
        return None

    def load(self, name: str) -> dict | None:
        """The report saved as ``<name>.json``, or None."""
        path = self.folder / f"{name}.json"
        return read_json(path, "move it away") if path.exists() else None


def record_of(row: dict, grade: Callable[[str, dict], Grade], sample: Sample, identity: dict) -> dict:
    """Everything that is needed to judge a completion again without the model, and what the grader says of it."""
    return {
        **{key: value for key, value in row.items() if key not in ("prompt", "id", *UNRECORDED)},
        **identity,
        "prompt": message_text(row["prompt"], "user"),
        "prefill": sample.prefill,
        "completion": sample.text,
        "length": sample.length,
        "truncated": sample.truncated,
        **record_summary(grade(sample.prefill + sample.text, row)),
    }


def record_summary(grade: Grade) -> dict:
    """What a record says of its grade; ``correct`` is the medium tier."""
    return {**asdict(grade), "correct": grade.medium}


def summarize_records(records: Sequence[dict]) -> dict:
    """Metrics of one pass from its records: accuracy (medium), tiers, pass@k, maj@k, false claims, length and shape.

    ``false_claims`` is the share of completions that give a wrong answer (`is_false_claim`), of all completions.
    Cover@tau and different answers and texts (`distinct_metrics`) where there are several samples; `approach_metrics`
    where any record tells an approach.
    Where records have a "part", such as a range of difficulty, also the accuracy of each and how many of it are cut
    off, as ``accuracy/<part>`` and ``truncated/<part>``; where they have "choices", also `choice_metrics`; where they
    have "same_set", `sql_metrics`.
    """

    def of_problems(read: Callable[[dict], object], part: str | None = None) -> list[list]:
        chosen = [record for record in records if part is None or record["part"] == part]
        return list(by_problem(chosen, read).values())

    medium = np.array(of_problems(itemgetter("medium")))
    ks = sorted({*KS, medium.shape[1]})
    metrics = summarize(medium, ks)
    votes = summarize(np.array(of_problems(_votes_right)), ks, answers=of_problems(itemgetter("answer")))
    metrics |= {name: value for name, value in votes.items() if name.startswith("maj@")}
    metrics |= cover_metrics(medium)
    if medium.shape[1] > 1 and "completion" in records[0]:
        answers, texts = of_problems(itemgetter("answer")), of_problems(itemgetter("completion"))
        metrics |= distinct_metrics(answers=answers, texts=texts)
    if any(record.get("approach") is not None for record in records):
        metrics |= approach_metrics(medium, of_problems(itemgetter("approach")), ks)
    metrics |= {tier: mean_interval(np.array(of_problems(itemgetter(tier)), dtype=float)) for tier in TIERS}
    claims = [[is_false_claim(verdict) for verdict in verdicts] for verdicts in of_problems(itemgetter("verdict"))]
    metrics["false_claims"] = mean_interval(np.array(claims, dtype=float))
    for part in dict.fromkeys(record["part"] for record in records if "part" in record):
        for name, read in (("accuracy", "medium"), ("truncated", "truncated")):
            metrics[f"{name}/{part}"] = mean_interval(np.array(of_problems(itemgetter(read), part), dtype=float))
    if "choices" in records[0]:
        metrics |= choice_metrics(records)
    if "same_set" in records[0]:
        metrics |= sql_metrics(records)
    return metrics | {
        "mean_length": float(np.mean([record["length"] for record in records])),
        "truncated": float(np.mean([record["truncated"] for record in records])),
        "well_formed": float(np.mean([record["well_formed"] for record in records])),
        "multiple_answers": float(np.mean([record["verdict"] == "multiple_answers" for record in records])),
    }


def _votes_right(record: dict) -> bool:
    """Whether the answer that a record votes for is right: that at its place, else the one that the loose tier read."""
    return record["loose"] and record["verdict"] not in (Verdict.WRONG, SqlVerdict.ACCIDENTAL)


def save_report(report: dict, path: Path) -> None:
    """Write ``report`` as one line of JSON, atomically."""
    write_text(path, json.dumps(report) + "\n")


class HeldOutCallback(TrainerCallback):
    """Evaluates on the held-out set every ``every`` optimiser steps, outside training's random state."""

    def __init__(
        self,
        held_out: HeldOut,
        tokenizer: PreTrainedTokenizerBase,
        every: int,
        accelerator: Accelerator,
        on_report: Callable[[dict], object],
    ):
        self.held_out, self.tokenizer, self.every = held_out, tokenizer, every
        self.accelerator, self.on_report = accelerator, on_report

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            name = f"step_{state.global_step:06d}"
            policy = self.accelerator.unwrap_model(model)
            self.on_report(self.held_out.evaluate(policy, self.tokenizer, name, state.global_step, self.accelerator))
