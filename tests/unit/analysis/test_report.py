"""The HTML report: safe with hostile text, self-contained, and holding the numbers."""

import json
import re
from html.parser import HTMLParser

import pytest

from analysis.report import NUM_SAMPLES, write_report
from common.errors import UserError

HOSTILE = "<script>alert('x')</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }} & \x00\x1b \ud800 \u202e end"


class TagCollector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def evaluation(mean, right, completion="fine", **extra):
    metric = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": len(right)}
    records = [
        {
            "id": f"p{i}",
            "prompt": f"question {i}",
            "completion": completion,
            "verdict": "right" if ok else "wrong",
            "correct": ok,
        }
        for i, ok in enumerate(right)
    ]
    return {"task": "countdown", "metrics": {"accuracy": metric, "mean_length": 123.4}, "records": records, **extra}


def make_run(folder, before=None, after=None, settings=None):
    (folder / "eval").mkdir(parents=True)
    lines = [{"step": step, "entropy": step / 7, "verdict/right": 0.2, "verdict/wrong": 0.8} for step in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(settings or {"flags": {"use_ir": "knn+"}, "seed": 17}))
    for name, content in (("before", before), ("after", after)):
        if content is not None:
            (folder / "eval" / f"{name}.json").write_text(json.dumps(content))
    return folder


def read(path):
    return path.read_text(encoding="utf-8")


def test_hostile_text_stays_text(tmp_path):
    hostile = evaluation(0.5, [True, False], HOSTILE)
    hostile["records"][0] |= {"id": HOSTILE, "prompt": [{"role": "user", "content": HOSTILE}], "verdict": HOSTILE}
    hostile["metrics"][HOSTILE] = 1.0
    html = read(write_report(make_run(tmp_path / "run", hostile, hostile, {HOSTILE: HOSTILE})))
    collector = TagCollector()
    collector.feed(html)
    assert "script" not in {tag for tag, _ in collector.tags}
    assert not any(name.startswith("on") for _, attributes in collector.tags for name in attributes)
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "\x00" not in html and "\x1b" not in html
    assert "\u2400\u241b \\ud800" in html


def test_nothing_is_loaded_from_outside(tmp_path):
    html = read(write_report(make_run(tmp_path / "run", evaluation(0.2, [False]), evaluation(0.4, [True]))))
    collector = TagCollector()
    collector.feed(html)
    assert {tag for tag, _ in collector.tags}.isdisjoint({"link", "iframe", "a", "script"})
    sources = [attributes["src"] for tag, attributes in collector.tags if tag == "img"]
    assert sources and all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert not re.search(r"https?://|@import|url\(", html)


def test_the_numbers_appear(tmp_path):
    html = read(write_report(make_run(tmp_path / "run", evaluation(0.2, [False] * 5), evaluation(0.4, [True] * 5))))
    for text in ("20.0 % [15.0, 25.0]", "40.0 % [35.0, 45.0]", "2.00x", "123.4", "5 problems", "3 optimiser steps"):
        assert text in html
    assert "<td>entropy</td><td>0.4286</td><td>0.2857</td>" in html
    assert "<td>flags.use_ir</td><td>knn+</td>" in html
    assert "<td>seed</td><td>17</td>" in html


def test_samples_show_every_change_of_verdict(tmp_path):
    """Forty problems solved before and after must not crowd out the one lost and the one never solved."""
    before, after = [True] * 40 + [True, False, False], [True] * 40 + [False, False, True]
    html = read(write_report(make_run(tmp_path / "run", evaluation(0.9, before), evaluation(0.9, after))))
    shown = re.findall(r"<b>Problem (\w+)</b>", html)
    assert len(shown) == NUM_SAMPLES
    assert {"p40", "p41", "p42"} <= set(shown)


def test_a_long_completion_is_cut_with_a_note(tmp_path):
    html = read(write_report(make_run(tmp_path / "run", after=evaluation(0.5, [True], "z" * 7000))))
    assert "[1000 more characters]" in html and "z" * 6001 not in html


@pytest.mark.parametrize("sides", [{}, {"before": evaluation(0.5, [True])}, {"after": evaluation(0.5, [False])}])
def test_missing_evaluations_are_left_out(tmp_path, sides):
    html = read(write_report(make_run(tmp_path / "run", **sides)))
    assert ("holds no evaluation" in html) == (not sides)
    assert html.count('<div class="sample">') == len(sides)


def test_a_folder_that_is_no_run_gets_no_report(tmp_path):
    with pytest.raises(UserError):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def warnings_section(html):
    return html.partition("<h2>Warnings</h2>")[2].partition("<h2>")[0]


def warning(**changes):
    found = {
        "step": 40,
        "watchdog": "length collapse",
        "message": "shrank from 120 to 11 tokens",
        "advice": "raise beta",
    }
    return json.dumps(found | changes) + "\n"


def test_warnings_appear_with_their_numbers_and_cannot_inject_html(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "warnings.jsonl").write_text(warning() + warning(step=80, watchdog="repetition", message=HOSTILE))
    html = read(write_report(run))
    section = warnings_section(html)
    assert "<td>40</td><td>length collapse</td><td>shrank from 120 to 11 tokens</td><td>raise beta</td>" in section
    assert section.index("<td>40</td>") < section.index("<td>80</td><td>repetition</td>")
    assert "&lt;script&gt;" in section and "<script" not in section


def test_a_run_without_warnings_is_told_from_one_nobody_watched(tmp_path):
    run = make_run(tmp_path / "run")
    assert "No watchdog looked" in warnings_section(read(write_report(run)))
    (run / "warnings.jsonl").touch()
    assert "No warning:" in warnings_section(read(write_report(run)))


def test_a_warning_cut_off_by_a_kill_is_left_out_and_a_damaged_one_named(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "warnings.jsonl").write_text(warning() + warning(step=80)[:30])
    section = warnings_section(read(write_report(run)))
    assert "<td>40</td>" in section and "80" not in section
    (run / "warnings.jsonl").write_text(warning() + "{\n" + warning())
    with pytest.raises(UserError, match="line 2"):
        write_report(run)
    (run / "warnings.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="watchdog"):
        write_report(run)
