"""How many completions an evaluation samples at once: what the flag says, else as many as training has room for."""

from dataclasses import replace

from policy.load import architecture_of
from training.fit.estimate import Work, estimate
from training.run_options import RunConfig, RunOptions

MOST = 256  # by default; more is hardly faster


def evaluation_batch(options: RunOptions, config: RunConfig, work: Work) -> int:
    """Completions at once of the evaluations of a run of these shapes; 0 where nothing is evaluated.

    ``--eval_batch_size``, and unset: `MOST` on a CPU; on a GPU the largest power of two up to it with which evaluation
    takes no more memory than training by the estimate, so that a run that fits does not fail in its evaluations.
    """
    if not config.do_eval:
        return 0
    if options.eval_batch_size:
        return options.eval_batch_size
    return MOST if work.device == "cpu" else largest_batch(options, work)


def largest_batch(options: RunOptions, work: Work) -> int:
    """The largest power of two up to `MOST` with which evaluation does not raise the estimated peak; 1 at least."""
    architecture, batch = architecture_of(options.model_name), MOST
    peak = estimate(architecture, options, replace(work, evaluation_batch=0)).peak
    while batch > 1 and estimate(architecture, options, replace(work, evaluation_batch=batch)).peak > peak:
        batch //= 2
    return batch
