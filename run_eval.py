"""Evaluate any checkpoint under strict, medium and loose graders: flags -> rows -> one generation pass -> table, JSON.

python run_eval.py --task=gsm8k --model_name=path/to/model/
"""

from common.threads import choose_threads

choose_threads()  # before torch is imported

from common.flags import answer_help, parse_one
from evaluation.options import EvalOptions

answer_help(EvalOptions)  # before anything large is imported

from pathlib import Path

from common.errors import run_cli
from common.files import check_output
from evaluation.against_base import against_base, base_lines
from evaluation.compare import compare, compare_table, read_comparable, read_report, regrade
from evaluation.evaluate import save_report
from evaluation.table import report_text
from evaluation.tasks import checked_task, load_rows, with_prompts
from policy.chat import read_template_kwargs
from policy.load import resolve
from policy.setup_line import unseen_gpu
from rewards.sandbox.pool import open_sandbox


def main() -> None:
    # ---- flags
    options = parse_one(EvalOptions)

    # ---- finished evaluations
    if options.compare:
        first, second = map(read_comparable, options.compare)
        print("\n".join([compare_table(compare(first, second)), *base_lines(against_base(first, second))]))
        return
    if options.regrade:
        report, changed = regrade(read_report(options.regrade))
        path = options.in_output(Path(options.regrade).with_suffix(".regraded.json"))
        check_output("output", path, "file")
        save_report(report, path)
        print(f"{changed} of {len(report['records'])} verdicts changed")
        print(report_text(report, path, options.tier))
        return

    # ---- rows
    task, path = checked_task(options), options.output_path()
    check_output("output", path, "file")
    resolve(options.model_name)
    if warning := unseen_gpu():
        print(warning, flush=True)
    max_new_tokens = options.max_new_tokens or task.max_new_tokens
    if options.backend == "lighteval":
        run_backend(options, max_new_tokens)
        return
    if task.grader == "code":
        print(open_sandbox(options.sandbox, options.test_seconds, workers=1).describe(), flush=True)
    rows = load_rows(task, options)
    if options.rank:
        from evaluation.rank import evaluate_ranking

        report = evaluate_ranking(
            options.model_name, options.task, rows, path, options.asked(task.grader), options.seed, options.dtype
        )
        print(report_text(report, path))
        return
    rows = with_prompts(task, rows, options)

    # ---- generate, grade, save, print
    from evaluation.checkpoint import evaluate_checkpoint
    from evaluation.generate import Decoding

    decoding = Decoding(options.n, options.temperature, max_new_tokens, options.top_p)
    report = evaluate_checkpoint(
        options.model_name,
        options.task,
        rows,
        task.grade,
        decoding,
        path,
        options.asked(task.grader),
        options.batch_size,
        options.seed,
        options.dtype,
        read_template_kwargs(options.chat_template_kwargs),
    )
    print(report_text(report, path, options.tier))


def run_backend(options: EvalOptions, max_new_tokens: int) -> None:
    """Evaluate through LightEval and print its metrics."""
    from evaluation.lighteval_backend import run_lighteval

    folder = options.output_path().with_suffix("") / "lighteval"
    metrics = run_lighteval(
        options.model_name,
        options.task,
        folder,
        max_samples=options.limit or None,
        max_new_tokens=max_new_tokens,
        batch_size=options.batch_size,
        data=options.data or None,
        num_shots=options.num_shots,
        prompt_type=options.prompt_type,
        seed=options.seed,
        chat_template_kwargs=read_template_kwargs(options.chat_template_kwargs),
    )
    for name, value in metrics.items():
        print(f"{name:40}{value:.4g}")
    print(f"records: {folder}")


if __name__ == "__main__":
    run_cli(main)
