"""Figures of a run folder, and an overlay of several: ``python -m analysis.plots RUN [RUN ...] [--out FILE]``."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import style
from analysis.panels import TOPICS, draw_held_out, held_out, training_accuracy
from analysis.runs import Run, read_run
from analysis.style import Line, Panel, line_panel, save_figure, smoothing_span
from common.errors import UserError, run_cli
from common.files import check_output
from common.flags import NamesParser

OVERVIEW = (
    "accuracy",
    "verdicts",
    "bonus_right_wrong",
    "advantage_share",
    "zero_variance",
    "entropy",
    "length",
    "rewards",
)
OVERVIEW_PANELS = 6


def plot_run(run: Run) -> list[Path]:
    """Draw every topic the run logged, and the overview of the six most telling ones, into RUN/plots/.

    Returns the files written, the overview first.
    """
    folder = run.path / "plots"
    panels = {topic: build(run) for topic, (_, build) in TOPICS.items()}
    note = _smoothing_note(len(run.log))
    files = []
    with mpl.rc_context(style.STYLE):
        telling = [panels[topic][0] for topic in OVERVIEW if panels[topic]][:OVERVIEW_PANELS]
        if telling:
            figure = style.make_figure(telling, f"Run {run.name}", note)
            files.append(save_figure(figure, folder / "overview.png"))
        for topic, (title, _) in TOPICS.items():
            if panels[topic]:
                heading = f"{title}, run {run.name}" if len(panels[topic]) > 1 else f"Run {run.name}"
                files.append(save_figure(style.make_figure(panels[topic], heading, note), folder / f"{topic}.png"))
    return files


def plot_comparison(runs: Sequence[Run], out: str | Path) -> Path:
    """Overlay several runs, one colour each, in one figure written to ``out``.

    Raises:
        UserError: no metric was logged by any of the runs, or ``out`` is no image format that matplotlib writes.
    """
    out = Path(out)
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out={str(out)!r} must end in .png, .pdf or .svg.")
    names = _distinct_names(runs)
    looks = [(style.color_of(i), "-" if i < len(style.SERIES) else "--") for i in range(len(runs))]
    panels = _comparison_panels(runs, names, looks)
    if not panels:
        raise UserError(f"the runs {', '.join(names)} logged nothing to compare; check the folders.")
    with mpl.rc_context(style.STYLE):
        note = _smoothing_note(max(len(run.log) for run in runs))
        figure = style.make_figure(panels, title="", note=note)
        handles = [
            Line2D([], [], color=color, linestyle=dash, linewidth=2.5, label=name)
            for name, (color, dash) in zip(names, looks, strict=True)
        ]
        title = f"{len(runs)} runs compared"
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=min(len(runs), 4),
            title=title,
            title_fontsize=13.5,
            alignment="left",
        )
        return save_figure(figure, out)


def _comparison_panels(runs: Sequence[Run], names: Sequence[str], looks: Sequence[tuple[str, str]]) -> list[Panel]:
    def lines(series_by_run: Sequence[pd.Series]) -> list[Line]:
        joined = zip(series_by_run, names, looks, strict=True)
        return [Line(series, name, color, dash) for series, name, (color, dash) in joined if len(series)]

    training = [training_accuracy(run) for run in runs]
    units = {unit for series, unit in training if len(series)}
    is_share = units == {"share right"}
    evaluations = [held_out(run) for run in runs]
    shares = [
        run.log.set_index("step")[list(run.columns(r"ir/[^/]+/share_of_advantage"))].sum(axis=1, min_count=1).dropna()
        for run in runs
    ]
    candidates = [
        (
            "Training accuracy" if is_share else "Training reward",
            " or ".join(sorted(units)),
            lines([series for series, _ in training]),
            is_share,
        ),
        ("Groups with equal rewards", "share", lines([run.series("frac_reward_zero_std") for run in runs]), True),
        ("Bonus share of the advantage", "share", lines(shares), True),
        ("Policy entropy", "nats per token", lines([run.series("entropy") for run in runs]), False),
        ("Completion length", "tokens, mean", lines([run.series("completions/mean_length") for run in runs]), False),
    ]
    panels = [
        line_panel(title, unit, found, percent, labels=False) for title, unit, found, percent in candidates if found
    ]
    if any(len(frame) for frame in evaluations):
        panels.insert(1 if candidates[0][2] else 0, _held_out_panel(evaluations, looks))
    return panels


def _held_out_panel(evaluations: Sequence[pd.DataFrame], looks: Sequence[tuple[str, str]]) -> Panel:
    def draw(ax: Axes) -> None:
        last = max(frame.index.max() for frame in evaluations if len(frame))
        gap = last * min(0.012, 0.06 / len(evaluations))
        for i, (frame, (color, _)) in enumerate(zip(evaluations, looks, strict=True)):
            if len(frame):
                # Runs are evaluated at the same steps: a small shift keeps their error bars apart.
                shift = (i - (len(evaluations) - 1) / 2) * gap
                draw_held_out(ax, frame.set_axis(frame.index + shift), color)
        style.finish_axes(ax, "Held-out accuracy", "share right", percent=True)

    return draw


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    """Folder names, with the parent folder in front where two runs share one."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.path.resolve().parent.name}/{name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _smoothing_note(steps: int) -> str:
    span = smoothing_span(steps)
    return (
        f"Thick: exponential moving average over {span} logged steps. Thin, where drawn: logged values."
        if span > 1
        else ""
    )


def main() -> None:
    """Command line: one run is drawn into its own plots folder, several are overlaid into ``--out``."""
    parser = NamesParser("Draw the figures of a run, or compare several runs in one.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, outputs/<task>/<run name>")
    parser.add_argument("--out", help="image of the comparison; with several runs only")
    arguments = parser.parse_args()
    if arguments.out:
        check_output("out", arguments.out, "file")
    runs = [read_run(folder) for folder in arguments.runs]
    if len(runs) == 1 and arguments.out:
        raise UserError(f"--out={arguments.out!r} is for several runs; one run is drawn into its plots folder.")
    if len(runs) > 1 and not arguments.out:
        raise UserError(f"comparing {len(runs)} runs needs --out, for example --out comparison.png.")
    files = plot_run(runs[0]) if len(runs) == 1 else [plot_comparison(runs, arguments.out)]
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    run_cli(main)
