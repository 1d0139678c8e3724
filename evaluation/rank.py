"""Multiple choice without generation: rank the options of a question by their log-probability behind "Answer:".

The two ways of EleutherAI's lm-evaluation-harness for ARC: the sum of the log-probabilities of an option's tokens
(``acc``), and that sum divided by the bytes of its text (``acc_norm``). The options are not listed in the prompt.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evaluation.checkpoint import device_and_precision, rows_digest, weights_digest
from evaluation.choice import chance_corrected
from evaluation.compare import RANKS
from evaluation.evaluate import save_report
from evaluation.metrics import mean_interval
from policy.load import load_policy, load_tokenizer
from policy.options import PolicyOptions
from policy.precision import DTYPES, Precision
from policy.setup_line import announced_setup


def rank_prompt(question: str, shots: Sequence[dict] = ()) -> str:
    """``question`` and where its answer begins, behind the solved rows ``shots``."""
    solved = [f"Question: {shot['question'].strip()}\nAnswer: {shot['gold']}\n\n" for shot in shots]
    return f"{''.join(solved)}Question: {question.strip()}\nAnswer:"


@torch.no_grad()
def option_logps(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, choices: list[str]) -> Tensor:
    """(options,) float32: log-probability in nats of " " + text of each option behind ``prompt``."""
    start = len(tokenizer(prompt)["input_ids"])
    encoded = [tokenizer(f"{prompt} {choice}")["input_ids"] for choice in choices]
    longest = max(map(len, encoded))
    # Padding stands on the right, so that no token that counts sees it.
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in encoded], device=model.device)
    lengths = torch.tensor([len(tokens) for tokens in encoded], device=model.device)
    mask = torch.arange(longest, device=model.device) < lengths[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    logits = logits[:, start - 1 : -1].float()  # (options, T, V) -> (options, T - start, V)
    logps = logits.log_softmax(-1).gather(-1, ids[:, start:, None]).squeeze(-1)
    return (logps * mask[:, start:]).sum(-1)


def evaluate_ranking(
    model_name: str, task: str, rows: Dataset, output: Path, settings: dict, seed: int, dtype: str = "auto"
) -> dict:
    """Rank, save and return the report; its records hold the log-probability of each option.

    Args:
        rows: columns question, choices and gold; shots, see `rank_prompt`, where there are any.
        settings: what else makes this evaluation what it is (data, shots), for the report.
        seed: what drew the shots.
    """
    tokenizer = load_tokenizer(model_name)
    device, precision = device_and_precision(dtype)
    model = load_policy(model_name, PolicyOptions(dtype=precision)).to(device).eval()
    setup = announced_setup(model, precision, "none")
    records = []
    for number, row in enumerate(rows):
        with Precision(DTYPES[precision], device.type).autocast():
            prompt = rank_prompt(row["question"], row.get("shots", ()))
            logps = option_logps(model, tokenizer, prompt, row["choices"]).tolist()
        per_byte = [logp / len(text.encode()) for logp, text in zip(logps, row["choices"], strict=True)]
        best, best_per_byte = (
            row["choices"][max(range(len(found)), key=found.__getitem__)] for found in (logps, per_byte)
        )
        records.append(
            {
                **{name: row[name] for name in ("question", "choices", "gold", "subject")},
                "id": number,
                "logps": logps,
                "rank": best == row["gold"],
                "rank_per_byte": best_per_byte == row["gold"],
            }
        )
    options = [len(row["choices"]) for row in rows]
    metrics = {}
    for name in RANKS:
        metrics[name] = mean_interval([[float(record[name])] for record in records])
        metrics[f"{name}/chance_corrected"] = chance_corrected(metrics[name]["mean"], options)
    report = {
        "name": output.stem,
        "task": task,
        "model": model_name,
        "weights": weights_digest(model_name),
        "dtype": precision,
        "settings": settings,
        "seed": seed,
        "rows": rows_digest(rows),
        "setup": asdict(setup),
        "problems": len(rows),
        "metrics": metrics,
        "records": records,
    }
    save_report(report, output)
    return report
