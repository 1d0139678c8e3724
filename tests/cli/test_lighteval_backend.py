"""LightEval's own pipeline, for real and offline, on four rows: both tasks, prompts, verdicts, cache."""

import json
import shutil
import sys

import pytest
import torch
from transformers import set_seed

from evaluation.lighteval_backend import OVERLAY, run_lighteval
from policy.chat import render
from policy.load import EMBEDDED, load_tokenizer
from tasks.math.prompts import draw_shots, prompt
from tests.toys import shallow
from training.tiny_policy import build_model

pytestmark = pytest.mark.skipif(
    not (OVERLAY / "lighteval").is_dir(), reason="LightEval is not installed in its folder (requirements-lighteval.txt)"
)

# The second row has most characters. The last two have most tokens and differ at their beginnings alone,
# which are lost if prompts are cut. In the third LightEval takes 14.5, behind the words "the answer", for the gold.
ROWS = [
    {"question": "Ada has 2 pens and buys 3. How many?", "answer": "2 + 3 = 5\n#### 5"},
    {"question": "Numbers" * 20 + "?", "answer": "4 + 4 = 8\n#### 8"},
    {
        "question": "What is 29 halved" + " 7" * 50 + "?",
        "answer": "29 / 2 = 14.5. Round the answer up: 14.5 becomes 15\n#### 15",
    },
    {"question": "What is 27 divided by 3" + " 7" * 50 + "?", "answer": "9\n#### 9"},
]
# What the trained policy says to our prompt: right and in shape; right, but with text behind; in shape, but wrong;
# right without any tag. And to the built-in: right; wrong; right, where that cannot score; right inside <think>.
ANSWERS = [
    "<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n5\n</answer>",
    "<reasoning>\n4 + 4\n</reasoning>\n<answer>8</answer>\nDone.",
    "<think>\n29 / 2\n</think>\n<answer>\n14\n</answer>",
    "The answer is 9",
]
BUILTIN_ANSWERS = ["The answer is 5.", "The answer is 7.", "The answer is 15.", "<think>\nThe answer is 9.\n</think>"]
MAX_NEW_TOKENS = 24
TIERS = {"strict": [1, 0, 0, 0], "medium": [1, 1, 0, 0], "loose": [1, 1, 0, 1], "format": [1, 0, 1, 0]}


SHOT = {"question": "One?", "answer": "One.\n#### 1"}
BUILTIN_PROMPT = (
    "<|user|>Question: One?\nAnswer:<|assistant|> One.\n#### 1<|end|><|user|>Question: {question}\nAnswer:<|assistant|>"
)


def memorise(tokenizer):
    """A policy trained on the prompts of both tasks with one shot, each with its answer, until it knows them."""
    set_seed(0)
    model = shallow(build_model(tokenizer), layers=1)
    prompts = [
        render(prompt(row["question"], shots=draw_shots(1, 0, index)), tokenizer) for index, row in enumerate(ROWS)
    ]
    prompts += [BUILTIN_PROMPT.format(question=row["question"]) for row in ROWS]
    texts = [f"{text}{answer}<|end|>" for text, answer in zip(prompts, ANSWERS + BUILTIN_ANSWERS, strict=True)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    starts = [len(tokenizer(text)["input_ids"]) for text in prompts]
    is_answer = torch.arange(batch["input_ids"].shape[1])[None] >= torch.tensor(starts)[:, None]
    labels = batch["input_ids"].masked_fill(~is_answer | (batch["attention_mask"] == 0), -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(300):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.02:
            return model
    raise AssertionError(f"the policy has not learned the answers: loss {loss.item():.3f}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Report on a policy that knows the answers, whether its folder stayed, and files left in the user's folders."""
    folder = tmp_path_factory.mktemp("lighteval")
    data = folder / "data"
    data.mkdir()
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (data / "train.jsonl").write_text(json.dumps(SHOT) + "\n")
    policy = folder / "policy"
    shutil.copytree(EMBEDDED, policy)
    memorise(load_tokenizer("tiny")).save_pretrained(policy)
    files, home = sorted(policy.rglob("*")), folder / "home"
    home.mkdir()
    settings = {"data": str(data), "max_new_tokens": MAX_NEW_TOKENS, "batch_size": 4, "num_shots": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home))
        run_lighteval(str(policy), "gsm8k", folder / "out", **settings)
    left = [path for path in home.rglob("*") if path.is_file()]
    return json.loads((folder / "out" / "lighteval.json").read_text()), sorted(policy.rglob("*")) == files, left


def test_completions_are_those_of_whole_prompts(run):
    assert [record["completion"] for record in run[0]["records"]] == ANSWERS
    assert [record["builtin_completion"] for record in run[0]["records"]] == BUILTIN_ANSWERS


@pytest.mark.parametrize("metric", TIERS)
def test_our_task_reports_every_tier(run, metric):
    assert [record[metric] for record in run[0]["records"]] == TIERS[metric]
    assert run[0]["metrics"][f"gsm8k_tiers/{metric}"] == sum(TIERS[metric]) / 4


def test_builtin_gsm8k_has_its_own_prompt_metric_and_ceiling(run):
    records, metrics = run[0]["records"], run[0]["metrics"]
    assert records[0]["builtin_prompt"] == f"Question: {ROWS[0]['question']}\nAnswer:"
    # LightEval's default for its own task: what stands in <think> is taken away before it is judged.
    assert [record["builtin_correct"] for record in records] == [True, False, False, False]
    assert [record["builtin_attainable"] for record in records] == [True, True, False, True]
    assert (metrics["gsm8k/extractive_match"], metrics["gsm8k/ceiling"]) == (0.25, 0.75)


def test_run_leaves_no_trace_in_checkpoint_process_and_caches(run):
    """Completions cached under the policy's name would be taken for those of later weights at the same path."""
    assert run[1], "LightEval wrote into the checkpoint's folder"
    assert not run[2]
    assert "lighteval" not in sys.modules and str(OVERLAY) not in sys.path
