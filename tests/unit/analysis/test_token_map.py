"""The token map: one value per token of finished completions, and the page that paints them."""

import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.completions import Completion
from analysis.token_map.page import (
    LEVELS,
    QUANTITIES,
    Scale,
    TokenMapOptions,
    contrast,
    palette,
    token_map,
    write_token_map,
)
from analysis.token_map.values import TokenBatch, TokenFeatures, cut_pieces, load_token_bonus, tokenize
from common.errors import UserError
from common.state import save_state
from intrinsic import REGISTRY
from intrinsic.base import Bonus
from policy.chat import render
from policy.load import load_policy, load_tokenizer
from tasks.countdown import problems as countdown

CPU = torch.device("cpu")
QUESTION = countdown.question([5, 1, 4], 15)
RIGHT = "<think>\n(4-1)*5=15 hit\n</think>\n<answer>(4-1)*5</answer>"
COUNTDOWN = {"task": {"prompt_style": "chat"}, "run": {"model_name": "tiny"}, "grpo": {"max_completion_length": 40}}


def write_run(folder, options, rows, name="step_000003"):
    """A run folder with one batch of (question, completion, correct)."""
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"options": options}))
    frame = pd.DataFrame(rows, columns=["question", "completion", "correct"])
    frame.to_parquet(folder / "completions" / f"{name}.parquet")
    return folder


# ---- tokens and their values


def completion(text, ended=True):
    return Completion(QUESTION, countdown.prompt([5, 1, 4], 15, "chat"), text, True, ended)


@settings(deadline=None)
@given(st.text())
def test_pieces_together_are_the_text(text):
    tokenizer = load_tokenizer("tiny")
    text = text.encode("utf-8", "ignore").decode()
    batch = tokenize([completion(text, ended=False), completion("x")], tokenizer, None, CPU)
    pieces = batch.pieces[0]
    assert "".join(pieces) == text or not pieces
    assert len(pieces) == int(batch.tensors["completion_mask"][0].sum())


def test_text_that_no_token_covers_is_not_lost():
    """Some tokenizers leave the space before a word, or at the end, out of their offsets."""
    assert cut_pieces(" a b ", [(1, 2), (3, 4)]) == [" a", " b "]
    assert cut_pieces("\u00e9a", [(0, 1), (0, 1), (1, 2)]) == ["\u00e9", "", "a"]


def test_end_token_stands_where_it_was_sampled():
    tokenizer = load_tokenizer("tiny")
    items = [completion(RIGHT, ended) for ended in (True, False, None)]
    length = len(tokenizer(RIGHT)["input_ids"])
    for longest, with_end in ((None, True), (length + 1, True), (length, False)):
        batch = tokenize(items, tokenizer, longest, CPU)
        counts = batch.tensors["completion_mask"].sum(dim=1).tolist()
        assert counts == [length + 1, length, length + with_end]
        assert batch.pieces[0][-1] == tokenizer.eos_token


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_token_has_the_value_of_the_distribution_that_it_was_sampled_from(quantity):
    tokenizer, temperature = load_tokenizer("tiny"), 0.8
    item = completion(RIGHT)
    batch = tokenize([completion("7"), item], tokenizer, None, CPU)
    policy = load_policy("tiny").eval()
    prompt = tokenizer(render(item.prompt, tokenizer), add_special_tokens=False)["input_ids"]
    tokens = batch.tensors["completion_ids"][1]
    with torch.no_grad():
        logits = policy(torch.tensor([[*prompt, *tokens.tolist()]])).logits[0, len(prompt) - 1 : -1] / temperature
    logps = logits.log_softmax(-1)
    expected = {
        "entropy": -(logps.exp() * logps).sum(-1),
        "self_certainty": -logps.mean(-1) - math.log(logits.size(-1)),
        "logps": logps.gather(-1, tokens[:, None])[:, 0],
    }
    found = TokenFeatures(policy, None, temperature)(batch, frozenset({quantity}))[quantity]
    torch.testing.assert_close(found[1], expected[quantity], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("as_text", [True, False])
def test_special_tokens_of_a_prompt_are_those_of_training(monkeypatch, as_text):
    """A base model's start token goes before a plain text; a rendered conversation brings its own."""
    tokenizer, seen = load_tokenizer("tiny"), []
    encode = type(tokenizer).__call__

    def spy(self, text, add_special_tokens=True, **settings):
        seen.append((text, add_special_tokens))
        return encode(self, text, add_special_tokens=add_special_tokens, **settings)

    monkeypatch.setattr(type(tokenizer), "__call__", spy)
    prompt = QUESTION if as_text else countdown.prompt([5, 1, 4], 15, "chat")
    tokenize([Completion(QUESTION, prompt, RIGHT, True, True)], tokenizer, None, CPU)
    assert seen == [(render(prompt, tokenizer), as_text), (RIGHT, False)]


@pytest.mark.parametrize("by", ["the run", "run_eval.py"])
def test_prompts_are_rendered_with_the_names_that_the_chat_template_was_given(by, tmp_path, monkeypatch):
    names, rendered = {"aside": "Go."}, []
    run = write_run(tmp_path / "run", COUNTDOWN | {"grpo": {"chat_template_kwargs": names}}, [(QUESTION, RIGHT, True)])
    if by == "run_eval.py":
        run = tmp_path / "alone" / "eval" / "greedy.json"
        run.parent.mkdir(parents=True)
        asked = {"prompt_type": "reasoning", "num_shots": 0, "chat_template_kwargs": json.dumps(names)}
        record = {"prompt": QUESTION, "completion": RIGHT, "correct": True, "id": 0}
        about = {"task": "countdown", "model": "tiny", "seed": 0, "settings": asked, "records": [record]}
        run.write_text(json.dumps(about))
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template += "{% if aside is defined %}{{ aside }}{% endif %}"
    load_policy("tiny").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(
        "analysis.token_map.values.render", lambda *asked: rendered.append(render(*asked)) or rendered[-1]
    )
    write_token_map(TokenMapOptions(str(run), str(tmp_path / "map.html"), str(tmp_path / "model")))
    assert [text.endswith("<|assistant|>Go.") for text in rendered] == [True]


class Astonishment(Bonus):
    """A token-level bonus with a state and with features of both policies."""

    name, placement, needs = "astonishment", "token", frozenset({"logps", "frozen_hidden"})
    scale = 0.0

    def score(self, rollout):
        assert rollout.features["frozen_hidden"].dim() == 3 and rollout.vocab_size > rollout.completion_ids.max()
        assert rollout.prompt_mask.dtype == torch.bool
        return -self.scale * rollout.features["logps"]

    def load_state_dict(self, state):
        self.scale = state["scale"]


@pytest.fixture
def astonishment(monkeypatch, tmp_path):
    """The checkpoint of a run that was paid with `Astonishment`."""
    monkeypatch.setitem(sys.modules, "astonishment_module", SimpleNamespace(Astonishment=Astonishment))
    monkeypatch.setitem(REGISTRY, "astonishment", "astonishment_module:Astonishment")
    checkpoint = tmp_path / "run" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    load_policy("tiny").save_pretrained(checkpoint)
    load_tokenizer("tiny").save_pretrained(checkpoint)
    save_state({"bonuses": {"astonishment": {"bonus": {"scale": 3.0}, "nonfinite_streak": 0}}}, checkpoint)
    write_run(tmp_path / "run", COUNTDOWN, [(QUESTION, RIGHT, True), (QUESTION, "no", False)])
    return checkpoint


def test_a_bonus_paints_with_the_state_of_the_checkpoint(astonishment, tmp_path):
    settings = {"run": str(astonishment.parent), "model_name": str(astonishment)}
    values = {}
    for name, more in (("bonus", {"bonus": "astonishment"}), ("logps", {"quantity": "logps"})):
        page = write_token_map(TokenMapOptions(out=str(tmp_path / f"{name}.html"), **settings, **more)).read_text()
        values[name] = [float(text) for text in re.findall(r'title="\S+ (\S+)', page)]
    assert len(values["bonus"]) > 10
    np.testing.assert_allclose(values["bonus"], -3.0 * np.array(values["logps"]), rtol=1e-2, atol=1e-6)


def test_bonus_that_cannot_be_painted_is_refused(astonishment):
    for name, checkpoint, reason in [
        ("knn", str(astonishment), "one value per completion"),
        ("astonishment", "tiny", "checkpoint-<step>"),
        ("shuffle:sc", str(astonishment), "one value per completion"),
        ("rumour", str(astonishment), "unknown bonus"),
    ]:
        with pytest.raises(UserError, match=reason):
            load_token_bonus(name, checkpoint, {})
    save_state({"bonuses": {}}, astonishment)
    with pytest.raises(UserError, match="no bonus"):
        load_token_bonus("astonishment", str(astonishment), {"use_ir": "knn", "flag_of_another_version": 1})


def test_features_of_an_unknown_first_policy_are_refused():
    batch = tokenize([completion("7")], load_tokenizer("tiny"), None, CPU)
    with pytest.raises(UserError, match="run.json"):
        TokenFeatures(load_policy("tiny"), None, 1.0)(batch, frozenset({"frozen_hidden"}))


# ---- the page


def page_of(rows, title="title", note="note"):
    """The page of completions given as lists of (piece, value)."""
    width = max(len(row) for row in rows)
    values = torch.tensor([[value for _, value in row] + [99.0] * (width - len(row)) for row in rows])
    completions = [completion("".join(piece for piece, _ in row)) for row in rows]
    batch = TokenBatch(completions, [[piece for piece, _ in row] for row in rows], {})
    return token_map(batch, values, QUANTITIES["entropy"], title, note)


def spans(page):
    """(class, hover, text) of every token."""
    body = page.split("<pre>", 1)[1]
    return re.findall(r'<span class="([^"]*)" title="([^"]*)">(.*?)</span>', body, re.DOTALL)


def test_every_token_is_a_span_with_its_value_and_colour_and_no_space_between():
    page = page_of([[("a", 0.0), (" b", 1.0), ("c", 0.49)], [("d", 1.0)]])
    assert [(css, text) for css, _, text in spans(page)] == [
        ("l0", "a"),
        (f"l{LEVELS - 1}", " b"),
        (f"l{LEVELS // 2 - 1}", "c"),
        (f"l{LEVELS - 1}", "d"),
    ]
    assert spans(page)[2][1].startswith("entropy 0.49 nats")
    assert re.search(r"<pre><span [^>]*>a</span><span [^>]*> b</span><span [^>]*>c</span></pre>", page, re.DOTALL)


def test_hostile_text_stays_text_and_the_page_loads_nothing():
    page = page_of([[("<script>alert(1)</script>", 0.0), ("\"'&\x00\ud800", 1.0)]], title="<b>", note="{{ 7*7 }}")
    assert "<script" not in page and "<b>" not in page and "{{ 7*7 }}" in page
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    page.encode("utf-8")
    assert "\x00" not in page


def test_line_breaks_and_parts_of_characters_are_visible():
    assert [text for _, _, text in spans(page_of([[("\n", 0.0), ("", 1.0)]]))] == ["\u21b5\n", "\u00b7"]


def test_values_that_are_not_finite_are_marked_and_leave_the_scale_alone():
    rows = spans(page_of([[("a", math.nan), ("b", 1.0), ("c", 2.0), ("d", math.inf)]]))
    assert [css for css, _, _ in rows] == ["none", "l0", f"l{LEVELS - 1}", "none"]


def test_legend_gives_the_numbers_of_every_colour():
    legend = Scale(0.0, float(LEVELS)).legend()
    assert [entry["level"] for entry in legend] == list(range(LEVELS))
    assert legend[0]["label"] == "below 1" and legend[1]["label"] == "1 to 2"
    assert legend[-1]["label"] == f"above {LEVELS - 1}"


def test_one_outlier_does_not_bleach_the_others():
    values = np.concatenate([np.linspace(0, 1, 200), [1000.0]])
    scale = Scale.of(values)
    assert len({scale.level(value) for value in values}) == LEVELS


def test_equal_values_and_no_values_have_a_scale():
    assert Scale.of(np.full(5, 2.5)).legend() == [{"level": 0, "label": "2.5"}]
    assert Scale.of(np.full(5, 2.5)).level(2.5) == 0
    assert len(Scale.of(np.array([])).legend()) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_can_be_read_and_much_stands_out_from_the_page(dark):
    colors = palette(dark)
    assert all(contrast(background, text) >= 4.5 for background, text in colors)
    from_page = [contrast(background, "#14161a" if dark else "#ffffff") for background, _ in colors]
    assert from_page == sorted(from_page)


# ---- the command


def test_a_run_of_the_embedded_policy_becomes_a_page(tmp_path, capsys):
    run = write_run(tmp_path / "run", COUNTDOWN, [(QUESTION, RIGHT, True), (QUESTION, "no", False)])
    out = tmp_path / "map.html"
    assert write_token_map(TokenMapOptions(run=str(run), out=str(out), model_name="tiny", limit=1)) == out
    assert capsys.readouterr().out.startswith("device: cpu")
    page = out.read_text(encoding="utf-8")
    assert "".join(text for _, _, text in spans(page)).startswith("&lt;think&gt;\u21b5\n")
    assert QUESTION in page and "1 completions" not in page and ">right<" in page and ">wrong<" not in page


@pytest.mark.parametrize(
    "flags, reason",
    [
        ({"quantity": "mood"}, "mood"),
        ({"limit": 0}, "--limit=0"),
        ({"bonus": "no"}, "--bonus='no'"),
    ],
)
def test_bad_flags_are_refused_with_their_value(flags, reason):
    with pytest.raises(UserError, match=reason):
        TokenMapOptions(**({"run": "run", "out": "map.html"} | flags))
