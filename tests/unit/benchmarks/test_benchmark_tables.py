"""Tables of the benchmarks that run trainers, from numbers as their processes report them."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import base_table, bonus_overhead, fit_table, influence_reading, machine, step_time
from benchmarks.machine import caption, describe, publish
from common.devices import GIB
from common.errors import UserError

SETUP = {"device": "gpu", "name": "H100", "precision": "float32", "attention": "eager", "sampler": "vLLM"}


def test_step_times_are_medians_over_all_rounds_and_ratios_to_ours():
    def run(*seconds, tokens=100.0, mb=500.0):
        return {"seconds": list(seconds), "generation": [s / 4 for s in seconds], "tokens": tokens, "mb": mb}

    trl = [run(4.0, 8.0, mb=700.0), run(6.0, tokens=106.0), run(6.0)]
    runs = {"trl": trl, "trl, our precision": [run(3.0)], "ours": [run(2.0), run(4.0)]}
    lines = step_time.table(runs).splitlines()
    assert lines[2] == "| trl | 6.00 | 4.00 to 8.00 | 2.00 | 1.50 | 2.00 | 4.50 | 2.00 | 102 | 700 |"
    assert lines[4].startswith("| ours | 3.00 | 2.00 to 4.00 | 1.00 | 0.75 | 1.00 | 2.25 |")


def test_overhead_is_over_the_faster_run_of_plain_grpo_and_over_the_rest_of_the_own_steps():
    def run(seconds, inside, megabytes):
        return {"seconds": seconds, "inside": inside, "megabytes": megabytes}

    runs = [("no", run(2.0, 0.0, 1100)), ("sc", run(1.5, 0.5, 1200)), ("no", run(1.0, 0.0, 1000))]
    assert "| sc | 1.500 | 1.50 | 50.0% | 1200 | 1.200 |" in bonus_overhead.table(runs)


def test_a_card_fits_only_with_a_tenth_to_spare():
    assert fit_table.smallest_card(14 * 10**9) == "16 GB"
    assert fit_table.smallest_card(int(14.6 * 10**9)) == "24 GB"
    assert fit_table.smallest_card(80 * GIB) == "more than 80 GB"


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
    ],
)
def test_sizes_of_the_fit_table_have_the_published_number_of_weights(size, published):
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(fit_table.architecture(size)).num_parameters() == published


def test_columns_of_the_fit_table_are_what_their_heads_say(monkeypatch):
    asked, written = [], []
    monkeypatch.setattr(fit_table, "estimate", lambda *item: asked.append(item) or SimpleNamespace(peak=30 * GIB))
    monkeypatch.setattr(fit_table, "publish", lambda output, table, numbers: written.append(table))
    monkeypatch.setattr("sys.argv", ["fit_table", "--prompt=7", "--completion=5", "--completions=64"])
    fit_table.main()
    (_, penalty, held_twice), (_, plain, held_once), (_, adapter, _) = asked[:3]
    assert (penalty.lora, plain.lora, adapter.lora) == (False, False, True)
    assert (held_twice.reference, held_once.reference) == (True, False)
    assert (plain.dtype, adapter.dtype) == ("float32", "bfloat16")
    assert {(work.prompt, work.completion, work.generation_batch, work.micro_batch) for *_, work in asked} == {
        (7, 5, 64, 8)
    }
    rows = written[0].splitlines()
    assert rows[0].split(" | ")[1:] == [
        "full, float32, with KL penalty",
        "full, float32, --beta 0",
        "--lora, bfloat16 |",
    ]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 0.5B", "| 1.5B", "| 3B", "| 7B", "| 14B"]
    assert rows[2].count("30 GiB: 40 GB") == 3


@pytest.mark.parametrize(
    ("git", "commit"),
    [
        ({"commit": "abc", "dirty": True}, "abc + changes"),
        ({"commit": "abc", "dirty": False}, "abc"),
        (None, "unknown"),
    ],
)
def test_caption_names_gpus_cores_threads_and_the_commit_with_its_changes(git, commit, monkeypatch):
    found = {"cores": 8, "torch_threads": 3, "gpus": ["H100", "H200"]}
    run = {"started": "today", "git": git, "versions": {"torch": "2.9"}, "machine": found}
    monkeypatch.setattr(machine, "describe_run", lambda options: run)
    text = caption(describe())
    assert text.startswith("H100, H200, ") and "8 cores, 3 torch thread" in text
    assert "torch 2.9" in text and text.endswith(f"commit {commit}, today.")


def test_results_hold_the_machine_and_the_numbers(tmp_path, capsys):
    publish(str(tmp_path / "new" / "result"), "| a |", {"runs": [1]})
    text = (tmp_path / "new" / "result.md").read_text()
    assert text.startswith("| a |\n\n") and "torch" in text and text in capsys.readouterr().out
    numbers = json.loads((tmp_path / "new" / "result.json").read_text())
    assert numbers["runs"] == [1] and numbers["machine"]["torch"]


def test_the_table_of_a_base_policy_has_tiers_and_ranks_and_keeps_no_text(tmp_path):
    def value(mean):
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 20}

    tiers = {name: value(0.1 * number) for number, name in enumerate(("strict", "medium", "loose", "pass@8"), start=2)}
    made = {
        "countdown2": {
            "task": "countdown",
            "settings": {"data": "/home/user/secret", "split": "2", "prompt_type": "reasoning"},
            "decoding": {"samples": 8},
            "metrics": tiers | {"well_formed": 0.5, "mean_length": 31.6, "truncated": 0.25},
        },
        "igsm_tiny": {
            "task": "igsm",
            "settings": {"data": "", "split": "tiny:5-6", "prompt_type": "reasoning"},
            "decoding": {"samples": 1},
            "metrics": {name: tiers[name] for name in ("strict", "medium", "loose")}
            | {"well_formed": 1.0, "mean_length": 120.0, "truncated": 0.0},
        },
        "rank": {
            "task": "arc_easy",
            "metrics": {
                **{"rank": value(0.5), "rank_per_byte": value(0.4)},
                **{"rank/chance_corrected": 1 / 3, "rank_per_byte/chance_corrected": 0.2},
            },
        },
    }
    for name, report in made.items():
        report |= {"name": name, "problems": 20, "records": [{"question": "secret"}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    found = base_table.read(tmp_path)
    assert "secret" not in json.dumps(found)
    lines = base_table.table(found).splitlines()
    cells = "20.0 [10.0, 30.0] | 30.0 [20.0, 40.0] | 40.0 [30.0, 50.0] | 50.0 [40.0, 60.0] | 50% | 32 | 25%"
    assert lines[2] == f"| countdown, 2 numbers | reasoning | 20 | {cells} |"
    cells = "20.0 [10.0, 30.0] | 30.0 [20.0, 40.0] | 40.0 [30.0, 50.0] | - | 100% | 120 | 0%"
    assert lines[3] == f"| igsm, tiny:5-6 | reasoning | 20 | {cells} |"
    assert "| arc_easy | 20 | 50.0 [40.0, 60.0] | 40.0 [30.0, 50.0] | 0.333 | 0.200 |" in lines


def test_influence_by_samples_and_by_parameters_shows_what_is_undefined(monkeypatch, tmp_path):
    """What has its report is not measured again; a ratio whose divisor may be 0 is a hyphen."""
    asked, written = [], []

    def analyse(options):
        asked.append((options.queries, options.samples, options.parameters))
        ratio = (
            {"mean": None, "low": None, "high": None} if options.parameters else {"mean": 0.25, "low": 0.2, "high": 0.3}
        )
        pairs = dict.fromkeys(
            ("accuracy_factor", "learnable", "cosine", "share_positive"), {"mean": 0.5, "low": 0, "high": 1}
        )
        metrics = pairs | {"accuracy_variance": 0.125, "self_influence": 0.0151, "relative_influence": ratio}
        report = {"settings": asdict(options), "metrics": metrics, "subset": {"size": 163_840}, "setup": SETUP}
        folder = tmp_path / options.output
        folder.mkdir(parents=True)
        (folder / "influence.json").write_text(json.dumps(report))
        return report

    monkeypatch.setattr(influence_reading, "analyse", analyse)
    monkeypatch.setattr(influence_reading, "publish", lambda output, table, numbers: written.append(table))
    monkeypatch.setattr("sys.argv", ["influence_reading", f"--reports={tmp_path}", "--queries=5", "--more_queries=7"])
    influence_reading.main()
    influence_reading.main()
    assert asked == [(5, 8, ""), (5, 16, ""), (5, 32, ""), (7, 32, ""), (7, 32, ".")]
    assert "device: gpu (H100), precision: float32, attention: eager, sampler: vLLM. The reports name no" in written[0]
    assert written[0] == written[1] and "| 16 | 0.500 | 0.125 | 0.50 | 0.0151 |" in written[0]
    default, every = (line for line in written[0].splitlines() if "163,840" in line)
    assert default.endswith("| 0.500 [0.000, 1.000] | 0.50 [0.00, 1.00] | 0.250 [0.200, 0.300] |")
    assert every.endswith("| 0.50 [0.00, 1.00] | - |")
    path = tmp_path / "samples8" / "influence.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "others"}))
    with pytest.raises(UserError, match=r"influence.json is of other weights than --model_name='tiny' has; move it"):
        influence_reading.main()
    monkeypatch.setattr("sys.argv", ["influence_reading", f"--reports={tmp_path}", "--queries=6", "--more_queries=7"])
    with pytest.raises(UserError, match=r"influence.json was made with queries=5, not 6; .* another --reports"):
        influence_reading.main()
