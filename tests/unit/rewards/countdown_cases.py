"""A completion around an answer, and settings of random tests that repeat, for the tests of the Countdown scorer."""

from hypothesis import settings

REPEATABLE = settings(deadline=None, derandomize=True)


def answered(answer):
    return f"<think>\nwork\n</think>\n<answer>\n{answer}\n</answer>\n"
