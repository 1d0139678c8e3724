"""LightEval's pipeline on two tasks: gsm8k_tiers, ours, and its built-in gsm8k. Run by `evaluation.lighteval_backend`.

    python -m evaluation.lighteval_task REQUEST.json

Importable only where LightEval's folder is on PYTHONPATH. The tasks get rows and prompts from the request's folder.
"""

import json
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetricGrouping
from lighteval.models.model_input import GenerationParameters
from lighteval.models.model_output import ModelResponse
from lighteval.models.transformers.transformers_model import TransformersModelConfig
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.registry import Registry
from lighteval.tasks.requests import Doc, SamplingMethod
from lighteval.tasks.tasks.gsm8k import gsm8k as BUILTIN

from common.thinking import opened_thinking
from evaluation.lighteval_backend import Request
from policy.setup_line import setup_of
from rewards.answer import grade_number
from rewards.format import PLACE, AnswerPlace
from rewards.grade import TIERS

NAME = "gsm8k_tiers"
METRICS = (*TIERS, "format")


class TierGrader(SampleLevelComputation):
    """The three tiers of `rewards.answer.grade_number`, and format: the whole completion has the asked shape."""

    def compute(self, model_response: ModelResponse, doc: Doc, **kwargs) -> dict[str, float]:
        """One 0 or 1 per name in `METRICS`, for the first and only completion of ``model_response``."""
        # Not final_text, from which the pipeline has taken away <think> blocks: they are part of the shape.
        text = opened_thinking(doc.query) + model_response.text[0]
        grade = grade_number(text, doc.get_golds()[0], AnswerPlace.of_row(doc.specific))
        return {tier: float(getattr(grade, tier)) for tier in TIERS} | {"format": float(grade.well_formed)}


def tiers_prompt(line: dict, task_name: str | None = None) -> Doc:
    """A row of our task: the policy's whole prompt, the gold number, and where the prompt asks for it."""
    return Doc(
        task_name=task_name,
        query=line["prompt"],
        choices=[line["gold"]],
        gold_index=0,
        specific={PLACE: line[PLACE]},
    )


def tiers_task(rows: str, max_new_tokens: int) -> LightevalTaskConfig:
    """Our task on the folder ``rows``, in which test.jsonl has the columns prompt, gold and answer_place."""
    return LightevalTaskConfig(
        name=NAME,
        prompt_function=tiers_prompt,
        # A configuration cannot name data files; a folder with test.jsonl is read as the split test.
        hf_repo=rows,
        hf_subset="default",
        hf_avail_splits=["train", "test"],
        evaluation_splits=["test"],
        generation_size=max_new_tokens,
        # Not None, which becomes a tuple that the generation code cannot join to its list of stop sequences.
        stop_sequence=[],
        metrics=[
            SampleLevelMetricGrouping(
                metric_name=list(METRICS),
                higher_is_better=dict.fromkeys(METRICS, True),
                category=SamplingMethod.GENERATIVE,
                sample_level_fn=TierGrader(),
                corpus_level_fn=dict.fromkeys(METRICS, np.mean),
            )
        ],
    )


def builtin_task(rows: str, max_new_tokens: int) -> LightevalTaskConfig:
    """LightEval's gsm8k, prompt and metric unchanged, on the folder ``rows`` instead of the hub's data."""
    return replace(BUILTIN, hf_repo=rows, hf_subset="default", generation_size=max_new_tokens)


def _register(*tasks: LightevalTaskConfig) -> None:
    """Make ``tasks`` all that LightEval's registry knows.

    Its loader imports every built-in task before it looks for one, and some download files or query the hub as they are
    imported. This is the only place where LightEval is changed.
    """
    Registry.load_all_task_configs = staticmethod(lambda **kwargs: {task.name: task for task in tasks})


def _model_config(request: Request, **overrides) -> TransformersModelConfig:
    on_gpu = torch.cuda.is_available()
    return TransformersModelConfig(
        model_name=request.model,
        batch_size=request.batch_size,
        dtype="bfloat16" if on_gpu else "float32",
        device="cuda" if on_gpu else "cpu",
        # A folder of this call alone: cached completions are found by configuration and model name, not by weights, so
        # a checkpoint that was overwritten would be judged by the completions of the earlier one.
        cache_dir=request.cache,
        # Despite its name this is where LightEval cuts prompts. Unset, it cuts at the tokens of the prompt with most
        # characters plus the generation size. The length of completions is the task's generation_size.
        generation_parameters=GenerationParameters(max_new_tokens=request.context),
        **overrides,
    )


def _evaluate(task: str, config: TransformersModelConfig) -> tuple[dict, list]:
    """(metrics, details per row in file order) of ``task``, given as name|shots."""
    pipeline = Pipeline(
        tasks=task,
        pipeline_parameters=PipelineParameters(launcher_type=ParallelismManager.ACCELERATE),
        evaluation_tracker=EvaluationTracker(output_dir=config.cache_dir),
        model_config=config,
    )
    policy = pipeline.model.model
    print(setup_of(policy, policy.device, config.dtype, "LightEval"), flush=True)
    pipeline.evaluate()
    name = task.partition("|")[0]
    metrics = pipeline.evaluation_tracker.metrics_logger.metric_aggregated[task]
    details = sorted(pipeline.get_details()[task], key=lambda detail: int(detail.doc.id))
    return {f"{name}/{metric}": float(value) for metric, value in metrics.items()}, details


def _evaluate_tiers(request: Request) -> tuple[dict, list]:
    # The prompts have the chat template in them, and with it the special tokens; the tags are part of what is judged.
    config = _model_config(request, override_chat_template=False, add_special_tokens=False)
    return _evaluate(f"{NAME}|0", config)


def _evaluate_builtin(request: Request) -> tuple[dict, list]:
    return _evaluate(f"{BUILTIN.name}|{request.num_shots}", _model_config(request))


def _attainable(details: list, golds: list[str]) -> list[bool]:
    """Per row, whether the built-in metric accepts the right answer: it misreads the gold of some worked solutions."""
    metric = BUILTIN.metrics[0]
    scores = [
        metric.compute_sample(doc=detail.doc, model_response=ModelResponse(text=[f"The answer is {gold}."]))
        for detail, gold in zip(details, golds, strict=True)
    ]
    return [bool(score[metric.metric_name]) for score in scores]


def _records(tiers: list, builtin: list, attainable: list[bool]) -> list[dict]:
    metric = BUILTIN.metrics[0].metric_name
    return [
        {
            "id": int(ours.doc.id),
            "prompt": ours.doc.query,
            "gold": ours.doc.get_golds()[0],
            "completion": ours.model_response.text[0],
            **{name: bool(ours.metric[name]) for name in METRICS},
            "builtin_prompt": theirs.doc.query,
            "builtin_completion": theirs.model_response.text[0],
            "builtin_correct": bool(theirs.metric[metric]),
            "builtin_attainable": can_score,
        }
        for ours, theirs, can_score in zip(tiers, builtin, attainable, strict=True)
    ]


def run(request: Request) -> dict:
    """LightEval's version, the metrics of both tasks, and one record per row."""
    _register(
        tiers_task(f"{request.rows}/ours", request.max_new_tokens),
        builtin_task(f"{request.rows}/builtin", request.max_new_tokens),
    )
    tier_metrics, tiers = _evaluate_tiers(request)
    builtin_metrics, builtin = _evaluate_builtin(request)
    attainable = _attainable(builtin, [detail.doc.get_golds()[0] for detail in tiers])
    return {
        "lighteval": version("lighteval"),
        "metrics": tier_metrics | builtin_metrics | {f"{BUILTIN.name}/ceiling": float(np.mean(attainable))},
        "records": _records(tiers, builtin, attainable),
    }


if __name__ == "__main__":
    asked = Request(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(asked.result).write_text(json.dumps(run(asked)), encoding="utf-8")
