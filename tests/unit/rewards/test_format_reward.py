"""The format reward, and the reading of tags that all scorers share."""

import pytest

from rewards.format import FormatReward, completion_text, cut_thinking, last_answer

WELL_FORMED = [
    "<think>work</think><answer>1+2</answer>",
    "<think>\nline\nline\n</think>\n<answer>\n1+2\n</answer>\n",
    "<reasoning>\nwork\n</reasoning>\n<answer>\n1+2\n</answer>\n",
    "work after a prefilled tag</think> <answer>1+2</answer>",
    "  \n<think></think><answer></answer>  ",
]
ILL_FORMED = [
    "",
    "   \n",
    "1+2",
    "<answer>1+2</answer>",
    "<think>work</think>",
    "<think>work<answer>1+2</answer>",
    "<think>work</think><answer>1+2",
    "<think>work</think>1+2</answer>",
    "<answer>1+2</answer><think>work</think>",
    "<think>work</think> so <answer>1+2</answer>",
    "<think>work</think><answer>1+2</answer> done",
    "text <think>work</think><answer>1+2</answer>",
    "<think>work</reasoning><answer>1+2</answer>",
    "<think>a</think><think>b</think><answer>1+2</answer>",
    "<think>a<think>b</think><answer>1+2</answer>",
    "<think>a</think><reasoning>b</reasoning><answer>1+2</answer>",
    "<think>a</think><answer>1+2</answer><answer>1+2</answer>",
    "<think>maybe <answer>1+2</answer></think><answer>1+2</answer>",
    "<think>a</think><answer><answer>1+2</answer></answer>",
    "<think>a</think></answer>1+2<answer>",
    "<THINK>a</THINK><ANSWER>1+2</ANSWER>",
]


@pytest.mark.parametrize("text", WELL_FORMED)
def test_one_thinking_block_then_one_answer_block_is_paid(text):
    assert FormatReward()(prompts=[""], completions=[text]) == [1.0]


@pytest.mark.parametrize("text", ILL_FORMED)
def test_any_other_shape_is_not_paid(text):
    assert FormatReward()(prompts=[""], completions=[text]) == [0.0]


def test_one_value_per_completion_in_order_with_dataset_columns_ignored():
    reward = FormatReward()
    texts = [ILL_FORMED[-1], WELL_FORMED[0], ILL_FORMED[0]]
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    assert reward.__name__ == "format"
    assert reward(prompts=[""] * 3, completions=conversations, target=[1, 2, 3], trainer_state=None) == [0.0, 1.0, 0.0]


@pytest.mark.fault("F14")
def test_repeating_tags_never_pays_more_or_less_than_the_bounds():
    texts = [WELL_FORMED[0] * 1000, WELL_FORMED[0] + "x" * 10_000, "<think></think>" * 1000]
    assert FormatReward()(prompts=[""] * 3, completions=texts) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "said"}], "said"),
        ([{"role": "assistant", "content": "first"}, {"role": "assistant", "content": "last"}], "last"),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_completion_text_is_the_last_message(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("no tags", "no tags"),
        ("a<think>b</think>c", "a\0c"),
        ("prefilled</think>c", "c"),
        ("prefilled</reasoning>c", "c"),
        ("a<reasoning>never closed", "a"),
        ("<think>a</think>b<reasoning>c</reasoning>d", "\0b\0d"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("a</think>b<think>c</think>d", "b\0d"),
    ],
)
def test_thinking_is_cut_off_wherever_its_tags_sit(text, rest):
    assert cut_thinking(text) == rest


def test_cutting_never_joins_the_halves_of_a_tag():
    assert last_answer(cut_thinking("<ans<think>x</think>wer>1+2</answer>")) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>a</answer>", ("a", False)),
        ("<answer>a</answer><answer>b</answer>", ("b", True)),
        ("<answer>a<answer>b</answer>", ("b", False)),
        ("<answer>a</answer></answer>", ("a", False)),
        ("<answer>a</answer><answer>b", ("a", False)),
        ("</answer><answer>a</answer>", ("a", False)),
        ("<answer>a", None),
        ("</answer>a<answer>", None),
        ("", None),
    ],
)
def test_last_answer_is_the_last_complete_block(text, answer):
    assert last_answer(text) == answer
