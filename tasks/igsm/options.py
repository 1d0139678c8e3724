"""Flags and data of run_igsm.py: iGSM problems to train on, and to validate on inside and outside their difficulty."""

from dataclasses import dataclass

from datasets import Dataset, concatenate_datasets

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_choices, check_least, flag
from tasks.igsm.dataset import PROMPT_STYLES, add_prompts, generate
from tasks.igsm.space import ProblemSpace
from tasks.igsm.vocabulary import ANY


@dataclass
class IGSMOptions:
    """Problems, prompt and rewards."""

    min_op: int = flag(15, "Fewest operations of a training problem.")
    max_op: int = flag(20, "Most operations of a training problem.")
    ood_min_op: int = flag(21, "Fewest operations of a validation problem outside the range of training; 0 for none.")
    ood_max_op: int = flag(25, "Most operations of such a problem.")
    max_edges: int = flag(20, "Most edges of the graph of things that a problem is about, 2 to 28; one condition each.")
    modulus: int = flag(0, "0: exact integers up to 999 either way; 23: arithmetic modulo 23, as in iGSM.")
    zero_drop: float = flag(0.0, "Share of the problems with answer 0 that is left out, in [0, 1].")
    world: str = flag(ANY, "Names: any (one of the next five), trade, music, sky, study, farm, brief (one word each).")
    train_problems: int = flag(10_000, "Training problems, 1 or more.")
    prompt_style: str = flag("chat", "chat (conversation) or base (transcript to continue).")
    format_weight: float = flag(0.0, "Weight of the reward for shape alone." + ANY_WEIGHT)

    def __post_init__(self):
        check_choices(self, prompt_style=PROMPT_STYLES)
        check_least(self, train_problems=1)
        self.space = self._space(self.min_op, self.max_op)
        try:
            self.ood_space = self._space(self.ood_min_op, self.ood_max_op) if self.ood_min_op else None
        except UserError as error:
            named = str(error).replace("--min_op", "--ood_min_op").replace("--max_op", "--ood_max_op")
            raise UserError(named) from None

    def _space(self, min_op: int, max_op: int) -> ProblemSpace:
        others = {name: getattr(self, name) for name in ("max_edges", "modulus", "zero_drop", "world")}
        return ProblemSpace(min_op=min_op, max_op=max_op, **others)


def with_gold(problems: Dataset, style: str) -> Dataset:
    """Rows as an evaluation reads and records them, where "answer" is the policy's: prompt, gold, op, template."""
    rows = add_prompts(problems, style)
    return rows.map(lambda row: {"gold": str(row["answer"])}, remove_columns=["answer"])


def validation_problems(count: int, spaces: list[ProblemSpace], style: str) -> Dataset:
    """``count`` problems of the validation split, as evenly as possible of each of ``spaces``, named in column part.

    The same problems whatever the seed of a run; no template is one of the training or the test split's.
    """
    parts = []
    for number, space in enumerate(spaces):
        share = count // len(spaces) + (number < count % len(spaces))
        rows = with_gold(generate(max(1, share), "validation", 0, space), style)
        parts.append(rows.add_column("part", [f"op {space.min_op}-{space.max_op}"] * len(rows)))
    return concatenate_datasets(parts)


def load_problems(options: IGSMOptions, eval_problems: int, seed: int) -> tuple[Dataset, Dataset]:
    """(training, validation) rows with prompts, of splits that share no template; run_eval.py has a third one."""
    train = add_prompts(generate(options.train_problems, "train", seed, options.space), options.prompt_style)
    spaces = [space for space in (options.space, options.ood_space) if space is not None]
    return train, validation_problems(eval_problems, spaces, options.prompt_style)
