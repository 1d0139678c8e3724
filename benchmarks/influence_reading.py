"""How the measured influence depends on the number of samples and on the parameters that are looked at.

python -m benchmarks.influence_reading [--output outputs/influence_reading/table]

Runs analysis.influence on Countdown with other numbers of samples, then on two sets of parameters; what has its report
in --reports is not measured again. Nine minutes of one core.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.influence.measure import InfluenceOptions, analyse
from analysis.results_tables import interval_cell
from benchmarks.arm_records import check_settings
from benchmarks.machine import note_of_reports, publish
from common.errors import UserError, run_cli
from common.files import read_json
from common.flags import OutputFolder, OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from evaluation.checkpoint import weights_digest
from policy.options import EMBEDDED_NAME

SAMPLES = (8, 16, 32)
PARAMETERS = {"default (last two layers)": "", "`--parameters .` (all)": "."}  # as the table calls them -> regex
BY_SAMPLES = {"accuracy_factor": 3, "accuracy_variance": 3, "learnable": 2, "self_influence": 4}  # -> digits
BY_PARAMETERS = {"cosine": 3, "share_positive": 2, "relative_influence": 3}


@dataclass
class Options:
    """Which policy, and how many problems."""

    model_name: str = flag(EMBEDDED_NAME, "Policy: hub name, folder, or an embedded one.")
    queries: int = flag(64, "Problems that the numbers of samples are compared on, 2 or more.")
    more_queries: int = flag(128, "Problems that the parameters are compared on, 2 or more.")
    reports: OutputFolder = flag("outputs/influence_reading", "Folder of the reports of analysis.influence.")
    output: OutputStem = flag("outputs/influence_reading/table", "Path of the tables, without extension.")

    def __post_init__(self):
        check_least(self, queries=2, more_queries=2)


def report(options: Options, folder: str, **settings) -> dict:
    """The report of analysis.influence in ``folder`` of the reports, measured unless it is there.

    Raises `UserError` where the one that is there was measured with other settings, or of other weights.
    """
    output = Path(options.reports) / folder
    asked = InfluenceOptions(output=str(output), model_name=options.model_name, split_halves=True, **settings)
    path = output / "influence.json"
    if not path.is_file():
        return analyse(asked)
    found = read_json(path, "delete it to measure it again")
    theirs, ours = ({**of, "output": ""} for of in (found["settings"], asdict(asked)))
    check_settings(path, theirs, ours, "give another --reports")
    weights = weights_digest(options.model_name)
    if found.get("weights", weights) != weights:
        raise UserError(
            f"{path} is of other weights than --model_name={options.model_name!r} has; move it away, or give another "
            "--reports."
        )
    return found


def tables(by_samples: dict[int, dict], by_parameters: dict[str, dict]) -> str:
    """Markdown: metrics by number of samples, then by set of parameters, with intervals."""
    first = [[str(count), *_cells(found, BY_SAMPLES, False)] for count, found in by_samples.items()]
    second = [
        [name, f"{found['subset']['size']:,}", *_cells(found, BY_PARAMETERS, True)]
        for name, found in by_parameters.items()
    ]
    return "\n\n".join(
        [
            markdown_table(["N", *_heads(BY_SAMPLES)], first),
            markdown_table(["parameters", "values", *_heads(BY_PARAMETERS)], second),
            "N: samples of a problem. Brackets: 95 % intervals over problems.",
        ]
    )


def _heads(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def _cells(found: dict, names: dict[str, int], intervals: bool) -> list[str]:
    cells = []
    for name, digits in names.items():
        value = found["metrics"][name]
        value = value if isinstance(value, dict) else {"mean": value}
        cell = interval_cell({"low": None, "high": None, **value}, 1.0, digits)
        cells.append(cell if intervals else cell.partition(" ")[0])
    return cells


def main() -> None:
    options = parse_one(Options)
    by_samples = {
        count: report(options, f"samples{count}", queries=options.queries, samples=count) for count in SAMPLES
    }
    by_parameters = {
        name: report(
            options, f"parameters{number}", queries=options.more_queries, samples=max(SAMPLES), parameters=regex
        )
        for number, (name, regex) in enumerate(PARAMETERS.items())
    }
    found = {**by_samples, **by_parameters}
    numbers = {str(name): {key: run[key] for key in ("settings", "setup", "metrics")} for name, run in found.items()}
    shown = f"{tables(by_samples, by_parameters)}\n\n{note_of_reports(found.values())}"
    publish(options.output, shown, {"options": asdict(options), "reports": numbers})


if __name__ == "__main__":
    run_cli(main)
