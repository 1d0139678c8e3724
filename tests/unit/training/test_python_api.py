"""The trainer from Python as with TRL: names for policy and bonuses, one reward function or several, own functions."""

import re
import runpy

import pytest
import torch
from peft import get_peft_model

from common.errors import UserError
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.maxrl import MaxRL
from intrinsic.options import IntrinsicOptions, MathIntrinsicOptions
from intrinsic.pass_at_k import PassAtK
from intrinsic.pipeline import BonusPipeline
from intrinsic.unlikeliness import Unlikeliness
from policy.chat import render
from policy.load import load_policy, load_tokenizer
from policy.options import PolicyOptions
from tests.processes import ROOT
from training.own_rewards import with_own_rewards
from training.python_arguments import pipeline_of
from training.run_options import RunConfig
from training.self_check import Scoring, check_scoring
from training.trainer import IntrinsicGRPOTrainer

ROWS = [{"prompt": [{"role": "user", "content": f"Numbers: {n} 2 3. Target: 12."}], "points": n} for n in range(8)]


def length(completions, **columns):
    return [float(len(completion[0]["content"]) % 3 == 0) for completion in completions]


def points(completions, points, **columns):
    return [float(value) for value in points]


def settings(folder, **changes):
    sizes = {"bs": 2, "num_generations": 4, "L": 8, "max_steps": 1, "logging_steps": 1, "disable_tqdm": True}
    return RunConfig(output_dir=str(folder), use_cpu=True, save_strategy="no", **sizes | changes)


@pytest.fixture
def toy_size(monkeypatch, tmp_path):
    """Trainers of examples take one step of short answers, in groups of 4, and write below a folder of the test."""
    whole = RunConfig.__post_init__

    def of_toy_size(config):
        config.max_steps, config.num_generations, config.L = 1, 4, 8
        config.disable_tqdm, config.save_strategy = True, "no"
        whole(config)

    monkeypatch.setattr(RunConfig, "__post_init__", of_toy_size)
    monkeypatch.chdir(tmp_path)


def blocks_of(page):
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_block_of_the_readme_trains(toy_size, tmp_path):
    (block,) = blocks_of("README.md")
    (tmp_path / "block.py").write_text(block.replace("Qwen/Qwen2.5-0.5B-Instruct", "tiny"))
    left = runpy.run_path(str(tmp_path / "block.py"))
    assert left["trainer"].state.global_step == 1


def test_the_blocks_of_the_page_on_extensions_build_trainers(toy_size, tmp_path):
    for example, block in zip(("own_bonus", "own_reward"), blocks_of("docs/extending.md"), strict=True):
        names = runpy.run_path(str(ROOT / "examples" / f"{example}.py"))
        (tmp_path / "block.py").write_text(block)
        left = runpy.run_path(str(tmp_path / "block.py"), names | {"reward": length})
        assert left["trainer"].bonuses.bonuses


def test_rows_that_fill_no_batch_are_refused_before_a_policy_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("training.python_arguments.load_policy", lambda name: pytest.fail("refused too late"))
    with pytest.raises(
        UserError, match=r"8 training problems cannot fill a batch of 24 prompts .*RunConfig\(bs=\.\.\."
    ):
        IntrinsicGRPOTrainer("tiny", length, train_dataset=ROWS)


@pytest.mark.parametrize("example", ["own_reward", "own_bonus"])
def test_an_example_trains(example, toy_size):
    left = runpy.run_path(str(ROOT / "examples" / f"{example}.py"), run_name="__main__")
    assert left["trainer"].state.global_step == 1
    if example == "own_bonus":
        (bonus,) = left["trainer"].bonuses.bonuses
        assert bonus.seen and bonus.state_dict() == {"seen": sorted(bonus.seen)}


def test_policy_rows_bonuses_and_one_reward_function_by_name_and_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("training.python_arguments.build_encoder", lambda *args, **kwargs: pytest.fail("not needed"))
    trainer = IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses="sc,cfn")
    trainer.train()
    assert [bonus.name for bonus in trainer.bonuses.bonuses] == ["sc", "cfn"] and trainer.encode is None
    record = trainer.state.log_history[0]
    assert record["rewards/length/mean"] == record["reward"]
    # The only function says what is right.
    assert record["advantage/wrong_answer"] is not None


def test_the_tokenizer_renders_elsewhere_as_the_trainer_does(tmp_path):
    tokenizer, asked = load_tokenizer("tiny"), ROWS[0]["prompt"]
    tokenizer.chat_template += "{% if aside is defined %}{{ aside }}{% endif %}"
    args = settings(tmp_path, chat_template_kwargs={"aside": "again"})
    trainer = IntrinsicGRPOTrainer("tiny", length, args, ROWS, processing_class=tokenizer)
    assert render(asked, trainer.processing_class).endswith("again")


def test_a_reference_that_is_not_the_policy_before_training_is_refused_before_a_policy_is_loaded(tmp_path, monkeypatch):
    get_peft_model(load_policy("tiny"), PolicyOptions(lora=True).lora_config()).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr("training.python_arguments.load_policy", lambda name: pytest.fail("refused too late"))
    moving = settings(tmp_path, beta=0.04, sync_ref_model=True)
    with pytest.raises(UserError, match="--sync_ref_model moves the reference model, on which --use_ir=cfn"):
        IntrinsicGRPOTrainer("tiny", length, moving, ROWS, bonuses="cfn")
    with pytest.raises(UserError, match="--lora is the policy without its adapter"):
        IntrinsicGRPOTrainer("tiny", length, moving, ROWS, peft_config=PolicyOptions(lora=True).lora_config())
    with pytest.raises(UserError, match="is an adapter; the KL penalty .* would pull towards its base"):
        IntrinsicGRPOTrainer(str(tmp_path / "adapter"), length, settings(tmp_path, beta=0.04), ROWS)


def test_a_bonus_whose_column_no_reward_logs_is_refused_at_the_first_step(tmp_path):
    for bonuses, column in (("outcome", "answer"), ("shuffle:majority", "answer"), ("rarity", "approach")):
        trainer = IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=bonuses)
        with pytest.raises(UserError, match=f"{bonuses}' reads the column '{column}', which no .* log_extra"):
            trainer.train()


def test_a_column_that_was_logged_once_may_be_left_out_later(tmp_path):
    calls = []

    def answering(completions, log_extra, **columns):
        calls.append(len(completions))
        if len(calls) == 1:
            log_extra("answer", ["1"] * len(completions))
        return length(completions)

    trainer = IntrinsicGRPOTrainer("tiny", answering, settings(tmp_path, max_steps=2), ROWS, bonuses="majority")
    trainer.train()
    assert len(calls) == 2 and trainer.state.global_step == 2


def test_flags_in_options_mean_what_they_mean_in_a_script(tmp_path):
    """``sc_alone`` takes the weight of every reward, ``match_mass`` is that of the trainer, ``cosine`` is no bonus."""
    flags = IntrinsicOptions(use_ir="sc", sc_alone=True)
    trainer = IntrinsicGRPOTrainer("tiny", [length, points], settings(tmp_path), ROWS, bonuses=flags)
    assert trainer.reward_weights.tolist() == [0.0, 0.0] and not trainer.matches_mass
    trainer = IntrinsicGRPOTrainer(
        "tiny", length, settings(tmp_path), ROWS, bonuses=IntrinsicOptions(use_ir="maxrl", match_mass=True)
    )
    assert trainer.matches_mass and trainer.reward_weights.tolist() == [1.0]
    with pytest.raises(UserError, match="'cosine,sc' names cosine, a reward of the scripts"):
        IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=MathIntrinsicOptions(use_ir="cosine,sc"))


def test_sc_alone_leaves_nothing_to_match(tmp_path):
    flags = IntrinsicOptions(use_ir="sc", sc_alone=True)
    with pytest.raises(UserError, match="match_mass=True needs plain GRPO's advantages"):
        IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=flags, match_mass=True)


def test_objects_that_throw_each_other_away_are_refused(tmp_path):
    for bonuses, said in (
        ([MaxRL(), PassAtK()], "maxrl and passk both replace"),
        ([MaxRL(), Unlikeliness()], "advantage that unlikely would be part of; leave one of them out.$"),
        (BonusPipeline([MaxRL(), PassAtK()], [WeightSchedule(), WeightSchedule()]), "maxrl and passk both replace"),
    ):
        with pytest.raises(UserError, match=said):
            IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=bonuses)


def test_a_text_encoder_is_made_where_a_bonus_needs_one(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("training.python_arguments.build_encoder", lambda name, **where: asked.append(name) or length)
    trainer = IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses="knn+")
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"] and trainer.encode is length


def test_several_functions_none_of_which_is_called_correctness(tmp_path, monkeypatch):
    both = [length, points]
    with monkeypatch.context() as patch:
        patch.setattr("training.python_arguments.load_policy", lambda name: pytest.fail("refused too late"))
        with pytest.raises(UserError, match=r"knn\+ needs to know .*correctness='\.\.\.' with one of length, points"):
            IntrinsicGRPOTrainer("tiny", both, settings(tmp_path), ROWS, bonuses="knn+", encode=len)
        with pytest.raises(UserError, match="correctness='right' is no reward function; there are length, points"):
            IntrinsicGRPOTrainer("tiny", both, settings(tmp_path), ROWS, correctness="right")
    named = IntrinsicGRPOTrainer("tiny", both, settings(tmp_path), ROWS, bonuses="passk", correctness="points")
    assert named.correctness_column == 1
    trainer = IntrinsicGRPOTrainer("tiny", both, settings(tmp_path), ROWS, bonuses="sc")
    trainer.train()
    record = trainer.state.log_history[0]
    by_verdict = [name for name in record if name.endswith(("_right", "_wrong", "advantage/right", "wrong_answer"))]
    assert by_verdict and all(record[name] is None for name in by_verdict)
    assert not any("all_wrong" in name for name in record)
    assert record["ir/sc/share_of_advantage"] > 0


def test_bonus_objects_weigh_one_and_are_checked(tmp_path):
    class Strict(Bonus):
        name, placement = "strict", "advantage"

        def check(self, num_generations, max_completion_length):
            raise UserError(f"{num_generations} completions of {max_completion_length} tokens")

    pipeline = BonusPipeline([Strict()], [WeightSchedule()])
    with pytest.raises(UserError, match="4 completions of 8 tokens"):
        IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=pipeline)
    with pytest.raises(UserError, match="4 completions of 8 tokens"):
        IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=[Strict()])
    with pytest.raises(UserError, match="unknown bonus 'novelty'"):
        IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses="novelty")


def test_functions_of_ones_own_are_paid_beside_those_of_the_task(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def brief(completions, **columns):\n    return [0.0 for _ in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    scoring = with_own_rewards(Scoring([length], [1.0], {}, "", ""), "my_rewards:brief", 0.25)
    assert [column.__name__ for column in scoring.columns] == ["length", "brief"] and scoring.weights == [1.0, 0.25]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_rewards", "must be module:function"),
        ("./my_rewards.py:brief", "must be module:function"),
        ("rewards/mine:brief", "must be module:function"),
        ("broken_reward:brief", "cannot be loaded .*broken_reward.py, line 1"),
        ("no_such_module:brief", "cannot be loaded .ModuleNotFoundError: No module named 'no_such_module'"),
        ("math:brief", "cannot be loaded .*brief"),
        ("math:pi", "is no function"),
        ("math:sqrt,math:sqrt", "completions have a column 'sqrt' already"),
        ("named_so:correct", "completions have a column 'correct' already"),
        ("raises:brief", "cannot be loaded .NameError"),
    ],
)
def test_a_name_that_leads_to_no_function_is_refused(name, said, tmp_path, monkeypatch):
    (tmp_path / "broken_reward.py").write_text("def brief(:\n")
    (tmp_path / "named_so.py").write_text("def correct(completions, **columns):\n    return [0.0] * len(completions)\n")
    (tmp_path / "raises.py").write_text("nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=said):
        with_own_rewards(Scoring([length], [1.0], {}, "", ""), name, 1.0)


def test_settings_serve_a_second_trainer(tmp_path):
    config = settings(tmp_path, reward_weights=[0.5])
    options = IntrinsicOptions(use_ir="ppl", ir_level="reward")
    for _ in range(2):
        trainer = IntrinsicGRPOTrainer("tiny", length, config, ROWS, bonuses=options)
        assert trainer.reward_weights.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("pays", "said"),
    [
        (lambda completions, **columns: 1.0, "gives 1.0 for one completion"),
        (lambda completions, **columns: ["1"], "gives .'1'. for one completion"),
        (lambda completions, **columns: [1.0, 2.0], "gives .1.0, 2.0. for one completion"),
        (lambda completions, **columns: [float("nan")], "gives .nan. for one completion"),
        (lambda completions: [1.0], "fails on one completion .TypeError"),
        (lambda completions, **columns: [columns["nothing"]], "fails on one completion .KeyError"),
    ],
)
def test_a_reward_function_of_ones_own_is_tried_before_a_model_loads(pays, said, tokenizer, tmp_path):
    pays.__name__ = "mine"
    own = Scoring([pays], [1.0], {"prompt": "1 + 1 ="}, "2", "--prompt_type=plain")
    with pytest.raises(UserError, match=f"the reward function 'mine' {said}"):
        check_scoring(own, tokenizer, settings(tmp_path))
    for paid in ([None], [1], torch.tensor([0.5])):
        check_scoring(own._replace(columns=[lambda paid=paid, **columns: paid]), tokenizer, settings(tmp_path))


class Mine(Bonus):
    name, placement = "mine", "advantage"
    given = 0.0

    def score(self, rollout):
        return self.given

    def update(self, rollout):
        return {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"placement": "advantages"}, "'mine' has no placement of reward, advantage, token"),
        ({"needs": frozenset({"embeddings"})}, "'mine' needs 'embeddings', which no rollout has"),
        ({"reads": frozenset({"verdict"})}, "'mine' reads 'verdict', which no rollout has; use answer, approach"),
        ({"name": ""}, "Mine has the name ''"),
    ],
)
def test_a_bonus_of_ones_own_that_no_trainer_can_follow_is_named(change, said, tmp_path):
    bonus = Mine()
    for name, value in change.items():
        setattr(bonus, name, value)
    for bonuses in (bonus, [Mine(), Mine()], Mine):
        with pytest.raises(UserError, match=said if bonuses is bonus else "is no bonus|a name of its own"):
            pipeline_of(bonuses, settings(tmp_path))
    assert [bonus.name for bonus in pipeline_of(["ppl", "noise"], settings(tmp_path)).bonuses] == ["ppl", "noise"]


@pytest.mark.parametrize("given", [[0.0], None, 0.5, torch.zeros(1), torch.zeros(8, 1)])
def test_scores_of_a_bonus_of_ones_own_are_one_for_each_completion(given, tmp_path):
    bonus = Mine()
    bonus.given = given
    trainer = IntrinsicGRPOTrainer("tiny", length, settings(tmp_path), ROWS, bonuses=bonus)
    with pytest.raises(UserError, match="score.. of the bonus 'mine' gave .* a tensor of shape"):
        trainer.train()
