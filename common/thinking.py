"""The tags around a completion's thinking, which prompts may open and scorers cut."""

THINKING = (("<think>", "</think>"), ("<reasoning>", "</reasoning>"))


def opened_thinking(prompt: str) -> str:
    """The opening thinking tag that ``prompt``, as the policy reads it, ends in, with the white space after it.

    A completion continues that thinking, so scorers read this text and the completion as one; "" where there is none.
    """
    end = prompt.rstrip()
    return next((prompt[len(end) - len(tag) :] for tag, _ in THINKING if end.endswith(tag)), "")
