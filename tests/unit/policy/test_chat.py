"""Chat templates that refuse a system turn, and thinking that a template opens: what policy and rewards read."""

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from common.errors import UserError
from policy.chat import message_text, render, take_system_turns, take_template_kwargs, with_prefill
from policy.chat_checks import check_chat_template, check_conversations
from policy.load import load_tokenizer
from tasks.math.prompts import EXEMPLARS, prompt

TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + TURNS
)
NEVER = "{{ raise_exception('never') }}"
PARTS = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"
UNDEFINED = "{% if messages[0]['role'] == 'system' %}{{ nothing.at.all }}{% endif %}" + TURNS


@pytest.fixture
def with_template():
    def with_template(template):
        tokenizer = load_tokenizer("tiny")
        tokenizer.chat_template = template
        take_system_turns(tokenizer)
        return tokenizer

    return with_template


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING, UNDEFINED], ids=["refused", "alternating", "undefined"])
@pytest.mark.parametrize("shots", [0, 2])
def test_the_system_text_goes_before_the_first_user_turn_where_the_template_refuses_it(
    template, shots, with_template, capsys
):
    tokenizer = with_template(template)
    asked = prompt("How many?", "think", EXEMPLARS[:shots])
    system, first, *others = asked
    joined = [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *others]
    expected = "".join(f"<|{turn['role']}|>{turn['content']}" for turn in joined) + "<|assistant|>"
    assert render(asked, tokenizer) == expected
    assert message_text(asked, "user") == "How many?", "memories go by the question alone"
    check_chat_template(asked, tokenizer, "M")
    assert "M takes no system turn: its text goes before the first user turn" in capsys.readouterr().out


def test_the_trained_policy_is_asked_as_it_was_in_training(with_template, tmp_path):
    tokenizer = with_template(ALTERNATING)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    tokenizer.save_pretrained(tmp_path)
    again, asked = load_tokenizer(str(tmp_path)), prompt("How many?")
    assert render(asked, again) == render(asked, tokenizer) and again.chat_template == tokenizer.chat_template


def test_named_templates_take_system_turns_too(with_template):
    tokenizer = with_template({"default": NO_SYSTEM, "rag": TURNS})
    assert render(prompt("How many?"), tokenizer).count("<|user|>") == 1


def test_templates_with_a_system_turn_are_left_alone_and_nothing_is_said(with_template, capsys):
    tokenizer = with_template(TURNS)
    assert tokenizer.chat_template == TURNS
    check_chat_template(prompt("How many?"), tokenizer, "M")
    assert capsys.readouterr().out == ""


def test_a_template_that_drops_the_system_text_is_named(with_template, capsys):
    check_chat_template(prompt("How many?"), with_template("{{ messages[-1]['content'] }}"), "M")
    assert "leaves the system text out" in capsys.readouterr().out


@pytest.mark.parametrize("kwargs", [None, {"enable_thinking": False}])
@pytest.mark.parametrize("name", ["tiny", "tiny_igsm"])
def test_a_policy_trained_from_an_embedded_one_is_asked_without_system_text_as_that_was(name, kwargs, tmp_path, capsys):
    load_tokenizer(name, kwargs).save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for model, tokenizer in ((name, load_tokenizer(name)), (str(tmp_path), saved)):
        check_chat_template(prompt("How many?"), tokenizer, model)
    assert capsys.readouterr().out == ""


def test_a_template_for_which_nothing_works_is_refused_with_the_prompts_that_need_none(with_template):
    with pytest.raises(UserError, match=r"'M' refuses the prompt's turns \(never\); use .*--prompt_type=plain"):
        check_chat_template(prompt("How many?"), with_template(NEVER), "M")
    check_chat_template(prompt("How many?", "plain"), with_template(NEVER), "M")


@pytest.mark.parametrize("template", [PARTS, "{{ messages[0]['content'] }}"], ids=["parts", "system alone"])
def test_a_template_that_leaves_out_the_question_is_refused_with_the_prompts_that_need_none(template, with_template):
    with pytest.raises(UserError, match=r"'M' leaves out the text of the last turn.* use .*--prompt_type=plain"):
        check_chat_template(prompt("How many?"), with_template(template), "M")


def test_the_first_trace_whose_turns_are_refused_is_named(with_template):
    turn = {"role": "user", "content": "a"}
    reply = [{"role": "assistant", "content": "b"}]
    rows = Dataset.from_list([{"prompt": [turn], "completion": reply}, {"prompt": [turn, turn], "completion": reply}])
    check_conversations(rows.select([0]), with_template(ALTERNATING), "M")
    with pytest.raises(UserError, match=r"row 1: the chat template of --model_name='M' refuses its turns \(roles must"):
        check_conversations(rows, with_template(ALTERNATING), "M")


def test_rewards_read_the_thinking_that_the_prompt_opened(with_template):
    tokenizer = with_template(TURNS + "{% if add_generation_prompt and not closed %}<think>\n{% endif %}")
    reply, asked = [{"role": "assistant", "content": "a</think>b"}], prompt("How many?")
    assert with_prefill(asked, reply, tokenizer) == [{"role": "assistant", "content": "<think>\na</think>b"}]
    assert with_prefill(asked, reply, tokenizer, closed=True) == reply
    assert with_prefill("User: a\nAssistant: <think>", "b</think>", tokenizer) == "<think>b</think>"
    assert with_prefill("User: a\nAssistant:", "b</think>", tokenizer) == "b</think>"


READS = (
    "\n  {% macro said() %}{{ name }}{% endmacro %}{% if open is defined and not open %}no{% else %}yes{% endif %}\n"
)
READS += "{{ said() }}{{ values['a'][1] }}{% for m in messages %}{{ name }}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("join", [False, True])
def test_names_for_the_template_are_read_as_if_they_were_passed_and_what_is_passed_wins(join, tmp_path):
    kwargs = {"open": False, "name": "é'\"{%- %}}}\n\\ 😀", "values": {"a": [None, -2.5e-7, {"b": {"c": True}}]}}
    asked, plain, tokenizer = [{"role": "user", "content": "q"}], load_tokenizer("tiny"), load_tokenizer("tiny")
    plain.chat_template = tokenizer.chat_template = NO_SYSTEM + READS if join else READS
    for _ in range(2):
        take_template_kwargs(tokenizer, kwargs)
    take_system_turns(tokenizer)
    assert render(asked, tokenizer) == render(asked, plain, **kwargs)
    assert render(asked, tokenizer, open=True, name=3) == render(asked, plain, **kwargs | {"open": True, "name": 3})
    assert tokenizer.chat_template.count("set name") == 1
    take_template_kwargs(tokenizer, {"name": "later"})
    assert render(asked, tokenizer) == render(asked, plain, **kwargs | {"name": "later"})


@pytest.mark.parametrize("name", ["tokenize", "documents", "messages", "eos_token", "a-b", "not", "range"])
def test_names_that_are_not_the_templates_to_read_are_refused(name, with_template):
    with pytest.raises(UserError, match=f"sets '{name}', which is no free name"):
        take_template_kwargs(with_template(TURNS), {name: True})
