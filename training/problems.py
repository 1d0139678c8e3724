"""Training problems against policy and flags: which prompts fit, and whether there are enough of them."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig

from common.errors import UserError
from policy.chat import render
from policy.chat_checks import check_chat_template
from policy.load import context_length
from training.run_options import RunConfig, RunOptions


def fitting_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, options: RunOptions, config: RunConfig) -> Dataset:
    """Rows whose rendered prompt has at most ``max_prompt_length`` tokens and leaves room for ``L`` more.

    Prints how many were dropped. Raises `UserError` when none is left, when ``L`` alone exceeds the policy's context,
    or when the prompts are conversations and the policy has no chat template.
    """
    longest = longest_prompt(options, config)
    check_chat_template(rows[0]["prompt"], tokenizer, options.model_name)

    def fits(row: dict) -> bool:
        return len(tokenizer(render(row["prompt"], tokenizer), add_special_tokens=False)["input_ids"]) <= longest

    kept = rows.filter(fits)
    if len(kept) < len(rows):
        print(f"dropped {len(rows) - len(kept)} of {len(rows)} prompts longer than {longest} tokens")
    if not len(kept):
        raise UserError(
            f"all {len(rows)} prompts are longer than {longest} tokens; raise --max_prompt_length, or lower --L or the "
            "number of shots."
        )
    return kept


def longest_prompt(options: RunOptions, config: RunConfig) -> int:
    """Most tokens of a prompt: ``max_prompt_length``, or less where the policy's context leaves less beside ``L``.

    A colocated vLLM has the context that it is given. Raises `UserError` when nothing is left.
    """
    context = context_length(options.model_name) or options.max_prompt_length + config.L
    if context <= config.L:
        raise UserError(f"--L={config.L} leaves no room for a prompt in the policy's context of {context}; lower --L.")
    given = config.vllm_max_model_length
    if config.use_vllm and config.vllm_mode == "colocate" and given is not None:
        if given <= config.L:
            raise UserError(
                f"--vllm_max_model_length={given} leaves no room for a prompt beside --L={config.L}; raise it."
            )
        context = min(context, given)
    return min(options.max_prompt_length, context - config.L)


def check_batch(rows: Dataset, config: GRPOConfig, fix: str = "lower --bs or --gc") -> None:
    """Raise `UserError`, which advises ``fix``, when ``rows`` cannot fill one generation batch."""
    needed = config.generation_batch_size // config.num_generations
    if len(rows) < needed:
        raise UserError(
            f"{len(rows)} training problems cannot fill a batch of {needed} prompts (bs * gc); {fix}, or use more "
            "problems."
        )
