"""Prompts for code: the solution in one Python fence at the end, or the head of a function to go on from."""

from datasets import Dataset

from common.errors import UserError

_FENCED = (
    "Solve the task in Python with the standard library alone. Give the complete solution, with its imports, in one "
    "```python block at the end."
)
_TAGGED = (
    "Solve the task in Python with the standard library alone. Write your reasoning between <{thinking}> and "
    "</{thinking}>, then the complete solution, with its imports, in one ```python block between <answer> and "
    "</answer>."
)
SYSTEM_PROMPTS = {
    "fenced": _FENCED,
    "reasoning": _TAGGED.format(thinking="reasoning"),
    "think": _TAGGED.format(thinking="think"),
}
PROMPT_TYPES = (*SYSTEM_PROMPTS, "plain")
_PROGRAM = "\nThe program reads standard input and writes standard output."
EXAMPLE = {
    "id": "example",
    "question": "Write a function double(n) that returns twice the integer n.",
    "entry_point": "double",
    "test": "assert double(4) == 8",
    "helpers": "",
    "imports": "",
    "io": [],
    "head": '"""Twice the integer n."""\ndef double(',
    "gold": "",
}


def check_prompt(prompt_type: str, num_shots: int) -> None:
    """Raise `UserError` unless such prompts can be made."""
    if prompt_type not in PROMPT_TYPES:
        raise UserError(f"--prompt_type={prompt_type!r} does not go with code; use one of {', '.join(PROMPT_TYPES)}.")
    if num_shots:
        raise UserError(f"--num_shots={num_shots}: code is asked without worked examples; use 0.")


def prompt_columns(row: dict, prompt_type: str) -> dict:
    """The columns prompt and prefix, what a completion of a plain prompt goes on from; "" for the others."""
    if prompt_type == "plain":
        if not row["head"]:
            raise UserError(f"row {row['id']} is a program, which has no head to go on from; use --prompt_type=fenced.")
        return {"prompt": row["head"], "prefix": row["head"]}
    question = row["question"] + (_PROGRAM if row["io"] else "")
    turns = [{"role": "system", "content": SYSTEM_PROMPTS[prompt_type]}, {"role": "user", "content": question}]
    return {"prompt": turns, "prefix": ""}


def add_prompts(rows: Dataset, prompt_type: str, num_shots: int = 0, seed: int = 0) -> Dataset:
    """``rows`` with the columns of `prompt_columns`. Raises `UserError` as `check_prompt` does."""
    check_prompt(prompt_type, num_shots)
    return rows.map(lambda row: prompt_columns(row, prompt_type))


def worked_example(prompt_type: str) -> tuple[dict, str]:
    """(a row with its prompt, its right answer in the shape asked for), which the check at the start has graded."""
    row = EXAMPLE | prompt_columns(EXAMPLE, prompt_type)
    if prompt_type == "plain":
        return row, "n):\n    return 2 * n\n"
    fence = "```python\ndef double(n):\n    return 2 * n\n```"
    if prompt_type == "fenced":
        return row, fence
    return row, f"<{prompt_type}>\nMultiply by two.\n</{prompt_type}>\n<answer>\n{fence}\n</answer>"
