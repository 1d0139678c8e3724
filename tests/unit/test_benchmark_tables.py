"""Tables of the benchmarks that run trainers, from numbers as their processes report them."""

import json

from benchmarks import bonus_overhead, fit_table, step_time
from benchmarks.machine import publish
from training.memory_estimate import GIB


def test_step_times_are_medians_over_all_rounds_and_ratios_to_ours():
    def run(*seconds):
        return {"seconds": list(seconds), "tokens": 100.0, "mb": 500.0}

    runs = {"trl": [run(4.0, 8.0), run(6.0)], "trl, our precision": [run(3.0)], "ours": [run(2.0), run(4.0)]}
    lines = step_time.table(runs).splitlines()
    assert lines[2] == "| trl | 6.00 | 4.00 to 8.00 | 2.00 | 100 | 500 |"
    assert lines[4].startswith("| ours | 3.00 | 2.00 to 4.00 | 1.00 |")


def test_overhead_is_over_the_faster_run_of_plain_grpo_and_over_the_rest_of_the_own_steps():
    def run(seconds, inside, megabytes):
        return {"seconds": seconds, "inside": inside, "megabytes": megabytes}

    runs = {"tiny": [("no", run(2.0, 0.0, 1100)), ("sc", run(1.5, 0.5, 1200)), ("no", run(1.0, 0.0, 1000))]}
    assert "| tiny | sc | 1.500 | 1.50 | 50.0% | 1200 | 1.200 |" in bonus_overhead.table(runs)


def test_a_card_fits_only_with_a_tenth_to_spare():
    assert fit_table.smallest_card(14 * 10**9) == "16 GB"
    assert fit_table.smallest_card(int(14.6 * 10**9)) == "24 GB"
    assert fit_table.smallest_card(80 * GIB) == "more than 80 GB"


def test_results_hold_the_machine_and_the_numbers(tmp_path, capsys):
    publish(str(tmp_path / "new" / "result"), "| a |", {"runs": [1]})
    text = (tmp_path / "new" / "result.md").read_text()
    assert text.startswith("| a |\n\n") and "torch" in text and text in capsys.readouterr().out
    numbers = json.loads((tmp_path / "new" / "result.json").read_text())
    assert numbers["runs"] == [1] and numbers["machine"]["torch"]
