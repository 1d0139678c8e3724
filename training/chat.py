"""From a prompt, conversation or plain text, to the text that a policy reads."""

from transformers import PreTrainedTokenizerBase

from training.errors import UserError


def render(prompt: str | list[dict], tokenizer: PreTrainedTokenizerBase) -> str:
    """``prompt`` as the policy reads it: a text as it is, a conversation through the chat template."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def check_chat_template(prompt: str | list[dict], tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
    """Raise `UserError` when ``prompt`` is a conversation and the tokenizer cannot render one."""
    if not isinstance(prompt, str) and tokenizer.chat_template is None:
        raise UserError(
            f"--model_name={model_name!r} has no chat template; use an instruct model, or a prompt that needs none: "
            "--prompt_type=plain (questions) or --prompt_style=base (Countdown)."
        )
