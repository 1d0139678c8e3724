"""What others get of a run: a model card beside its final policy, and with ``--push_to_hub`` that policy alone."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from evaluation.table import closing_table
from intrinsic.base import Bonus
from policy.packaged import HUB_NAME, SOURCE, is_packaged, uses_package

CARD = "README.md"
logger = logging.getLogger(__name__)

_TEXT = """---
{front}
---

# {name}

{base} trained on the task {task} with GRPO ([arXiv 2402.03300](https://arxiv.org/abs/2402.03300)) {bonuses}.

{evaluation}

## How to load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

policy = AutoModelForCausalLM.from_pretrained("{where}")
tokenizer = AutoTokenizer.from_pretrained("{where}")
```

Prompts are those of the task ({prompt}); an answer is only found where they ask for it.

## How it was made

Training data: {data}. Seed {seed}. Commit {commit}. Every flag and version stands in `run.json` of the run.
{sources}"""


def model_card(
    name: str,
    task: str,
    record: Mapping[str, Any],
    bonuses: Sequence[Bonus],
    before: dict | None,
    after: dict | None,
) -> str:
    """The card of a run's final policy, Markdown with the hub's front matter.

    Args:
        name: of the run.
        record: what ``run.json`` holds.
        bonuses: those of the run.
        before, after: reports of its held-out evaluations; None where there are none.
    """
    flags = {flag: value for group in record["options"].values() for flag, value in group.items()}
    base, used = str(flags["model_name"]), flags["use_ir"]
    front = ["library_name: transformers", "tags: [trl, grpo, intrinsic-motivation]"]
    if is_packaged(base):
        front.insert(0, f"base_model: {HUB_NAME}")
    elif not Path(base).exists() and "/" in base:
        front.insert(0, f"base_model: {base}")
    table = "Not evaluated on held-out problems."
    if after is not None:
        table = f"Validation problems, before and after training:\n\n```\n{closing_table(before, after)}\n```"
    sources = "".join(f"\n- `{bonus.name}`: {_source(bonus)}" for bonus in bonuses)
    return _TEXT.format(
        front="\n".join(front),
        name=name,
        base=f"`{base}` ({SOURCE})" if uses_package(base) else f"`{base}`",
        task=task,
        bonuses="without a bonus" if used == "no" else f"and `--use_ir={used}`",
        evaluation=table,
        where=flags.get("hub_model_id") or name,
        prompt=f"`--prompt_type={flags['prompt_type']}`" if "prompt_type" in flags else "see the project's README",
        data=f"`{flags['data']}`" if flags.get("data") else "the task's own",
        seed=record["seed"],
        commit=(record.get("git") or {}).get("commit", "unknown"),
        sources=f"\nWhere each bonus is from:\n{sources}\n" if sources else "",
    )


def _source(bonus: Bonus) -> str:
    """The first sentence that the bonus's module says of itself: paper, and the difference to plain GRPO."""
    return " ".join((sys.modules[type(bonus).__module__].__doc__ or "").split("\n\n")[0].split())


def push_final(folder: Path, config) -> None:
    """Upload ``folder``, the final policy with its card, and nothing else of the run.

    To the repository of ``--hub_model_id``, by default named as the run. A hub that refuses costs a warning, no run.
    """
    repository = config.hub_model_id or config.run_name
    try:
        hub = HfApi(token=config.hub_token)
        url = hub.create_repo(repository, private=config.hub_private_repo, exist_ok=True)
        hub.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Final policy")
        print(f"uploaded {folder} to {url}")
    except Exception as error:
        logger.warning("%s is not on the hub (%s); push it by: hf upload %s %s", folder, error, repository, folder)
