"""Settings that cannot have an effect are named before the run trains; those that can are not."""

import re
from dataclasses import fields

import pytest
import yaml

from cli.parse import parse_options
from intrinsic import REGISTRY, build_bonus, build_bonuses
from intrinsic.flags.owners import owners
from intrinsic.options import BonusFlags, IntrinsicOptions, MathIntrinsicOptions
from intrinsic.rarity import PARTITIONS
from tasks.countdown.options import CountdownOptions
from tasks.math.options import GSM8KOptions
from tests.processes import ROOT
from tests.unit.intrinsic.mode_cases import each_flag, other_value
from training.inert import BONUS_FLAGS, RULES, Settings, inert_settings
from training.run_options import RunConfig, RunOptions

PLAIN = {"use_cpu": True, "bf16": False, "report_to": "none", "bs": 2, "gc": 4, "num_generations": 4}


def lines(intrinsic=None, options=None, steps=100, questions=150, **flags) -> list[str]:
    intrinsic = MathIntrinsicOptions(**intrinsic or {})
    bonuses = build_bonuses(intrinsic)
    return list(
        inert_settings(
            Settings(intrinsic, RunOptions(**options or {}), RunConfig(**PLAIN | flags), bonuses, steps, questions)
        )
    )


@pytest.fixture(autouse=True)
def vllm_is_there(monkeypatch):
    monkeypatch.setattr("training.vllm_checks.check_installed", lambda: None)


VLLM = {"use_vllm": True}
EACH = {"multi_objective_aggregation": "normalize_then_sum"}
UNCORRECTED = VLLM | {"vllm_importance_sampling_correction": False}
NO_EFFECT = [
    ({"epsilon_high": 0.28}, "--epsilon_high 0.28", "--num_iterations 2"),
    ({"epsilon": 0.1, "epsilon_high": 0.3}, "--epsilon 0.1, --epsilon_high 0.3", "one update"),
    ({"delta": 4.0}, "--delta 4.0", "one update"),
    ({"off_policy_mask_threshold": 0.5}, "--off_policy_mask_threshold 0.5", "one update"),
    ({"loss_type": "sapo", "sapo_temperature_pos": 2.0}, "--sapo_temperature_pos 2.0", "one update"),
    ({"loss_type": "sapo", "num_iterations": 2, "epsilon_high": 0.3}, "--epsilon_high 0.3", "clips nothing"),
    ({"vespo_k_pos": 3.0, "num_iterations": 2}, "--vespo_k_pos 3.0", "not vespo"),
    ({"vllm_importance_sampling_clip_max": 2.0}, "--vllm_importance_sampling_clip_max 2.0", "vLLM does not sample"),
    (VLLM | {"vllm_mode": "server", "vllm_gpu_memory_utilization": 0.5}, "utilization 0.5", "the server was started"),
    (VLLM | {"vllm_server_port": 8001}, "--vllm_server_port 8001", "--vllm_mode colocate"),
    (
        VLLM | {"vllm_mode": "server", "vllm_server_base_url": "http://a:1", "vllm_server_port": 2},
        "--vllm_server_port 2",
        "--vllm_server_base_url says",
    ),
    (UNCORRECTED | {"vllm_importance_sampling_mode": "token_mask"}, "token_mask", "nothing is corrected"),
    (UNCORRECTED | {"epsilon_high": 0.3}, "--epsilon_high 0.3", "one update"),
    ({"epsilon_high": 0.3, "steps_per_generation": 2, "num_iterations": 2}, "--epsilon_high 0.3", "one update"),
    (VLLM | {"cache_implementation": "static"}, "--cache_implementation static", "vLLM samples"),
    ({"entropy_target": 0.3}, "--entropy_target 0.3", "--use_adaptive_entropy"),
    ({"ref_model_sync_steps": 8}, "--ref_model_sync_steps 8", "--sync_ref_model"),
    (
        {"multi_objective_aggregation": "normalize_then_sum", "scale_rewards": "batch"},
        "--scale_rewards",
        "sum by the batch",
    ),
    (
        EACH | {"intrinsic": {"use_ir": "shuffle:knn+", "ir_level": "reward", "beta_e": 0.3}},
        "--beta_e 0.3",
        "--ir_weight sets",
    ),
    (EACH | {"intrinsic": {"use_ir": "repexp", "ir_level": "reward", "repexp_beta": 1.0}}, "--repexp_beta 1.0", "size"),
    ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "--warmup_steps 5", "constant from the first step"),
    ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"min_lr": 1e-6}}, "min_lr", "reads none"),
    ({"options": {"lora_r": 8}}, "--lora_r 8", "--lora"),
    ({"do_eval": False, "options": {"eval_batch_size": 8}}, "--eval_batch_size 8", "nothing is evaluated"),
    ({"intrinsic": {"ir_weight": "2"}}, "--ir_weight 2", "no bonus"),
    ({"intrinsic": {"use_ir": "rnd", "ir_min_std": 0.1}}, "--ir_min_std 0.1", "no bonus is paid in the reward"),
    ({"intrinsic": {"use_ir": "rnd", "ir_warmup_steps": 100}}, "--ir_warmup_steps 100", "before the weight has risen"),
    ({"intrinsic": {"use_ir": "knn+", "explore_warmup": 100}}, "--explore_warmup 100", "before it explores"),
    ({"intrinsic": {"use_ir": "knn", "cfn_dim": 30}}, "--cfn_dim 30", "for cfn, which --use_ir does not name"),
    ({"intrinsic": {"use_ir": "no", "rnd_alpha": 3.0}}, "--rnd_alpha 3.0", "for noise or rnd"),
    ({"intrinsic": {"use_ir": "cfn", "shuffle_seed": 3}}, "--shuffle_seed 3", "for shuffle"),
    ({"intrinsic": {"use_ir": "outcome"}, "questions": 800}, "--use_ir outcome", "the run asks 800 of 800 once each"),
    ({"intrinsic": {"use_ir": "shuffle:outcome"}, "questions": 900}, "--use_ir shuffle:outcome", "800 of 900 once"),
    ({"intrinsic": {"use_ir": "cfn"}, "steps": 20}, "--use_ir cfn", "pays after 20 generations, and the run has 20"),
    ({"intrinsic": {"use_ir": "shuffle:cfn"}, "steps": 9, "num_iterations": 2}, "shuffle:cfn", "the run has 5"),
    ({"warmup_steps": 100}, "--warmup_steps 100", "before the learning rate has risen"),
    ({"intrinsic": {"use_ir": "rarity", "rarity_tau": 0.5}}, "--rarity_tau 0.5", "not likelihood"),
    ({"intrinsic": {"use_ir": "shuffle:rarity", "rarity_threshold": 0.5}}, "--rarity_threshold 0.5", "no distances"),
    ({"intrinsic": {"use_ir": "rarity", "encoder": "policy"}}, "--encoder policy", "no text is embedded"),
    ({"intrinsic": {"use_ir": "cfn", "encoder": "policy"}}, "--encoder policy", "rarity, which --use_ir does not name"),
    (
        {"intrinsic": {"use_ir": "rarity", "rarity_partition": "likelihood", "rarity_alpha": 1.0}},
        "--rarity_alpha 1.0",
        "no power",
    ),
    ({"intrinsic": {"use_ir": "passk"}, "scale_rewards": "none"}, "--scale_rewards none", "replaces the advantages"),
    ({"intrinsic": {"use_ir": "maxrl", "ir_clip": 9.0}}, "--ir_clip 9.0", "not clipped"),
    ({"intrinsic": {"use_ir": "rarity", "ir_clip": 9.0}}, "--ir_clip 9.0", "not clipped"),
    ({"intrinsic": {"use_ir": "shuffle:majority", "ir_clip": 9.0}}, "--ir_clip 9.0", "not clipped"),
    ({"intrinsic": {"use_ir": "cfn", "explore_warmup": 200}}, "--explore_warmup 200", "for knn+"),
    ({"intrinsic": {"match_mass": True}}, "--match_mass True", "no bonus"),
    ({"intrinsic": {"use_ir": "cosine", "match_mass": True}}, "--match_mass True", "no bonus"),
]


@pytest.mark.parametrize(
    ("given", "flag", "reason"), NO_EFFECT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_setting_without_effect_is_one_line_with_flag_and_reason(given, flag, reason):
    (line,) = lines(**given)
    assert line.startswith("no effect: ") and flag in line and reason in line


EFFECT = [
    {},
    {"intrinsic": {"use_ir": "knn+", "k": 3, "memory_window": 9}},
    {"intrinsic": {"use_ir": "shuffle:rnd", "rnd_alpha": 3.0, "shuffle_seed": 3}},
    {"intrinsic": {"use_ir": "noise", "rnd_alpha": 3.0}},
    {"epsilon_high": 0.28, "num_iterations": 2},
    {"epsilon_high": 0.28, "steps_per_generation": 8},
    {"loss_type": "cispo", "epsilon_high": 5.0},
    {"loss_type": "sapo", "sapo_temperature_pos": 2.0, "num_iterations": 2},
    {"use_adaptive_entropy": True, "entropy_target": 0.3},
    {"scale_rewards": "batch"},
    EACH | {"intrinsic": {"use_ir": "repexp", "ir_level": "reward", "ir_weight": "0.1", "ir_schedule": "linear"}},
    EACH | {"intrinsic": {"use_ir": "repexp", "repexp_beta": 1.0}},
    EACH | {"intrinsic": {"use_ir": "knn", "ir_level": "reward", "beta_s": 0.0}},
    VLLM | {"vllm_gpu_memory_utilization": 0.5, "vllm_importance_sampling_mode": "token_mask", "epsilon_high": 0.3},
    VLLM | {"vllm_mode": "server", "vllm_server_host": "a", "vllm_server_port": 8001},
    UNCORRECTED | {"off_policy_mask_threshold": 0.5},
    {"warmup_steps": 0.1},
    {"options": {"lora": True, "lora_r": 8}},
    {"intrinsic": {"use_ir": "repexp", "ir_min_std": 0.1, "ir_level": "reward"}},
    {"intrinsic": {"use_ir": "cosine", "ir_weight": "2"}},
    {"intrinsic": {"use_ir": "nsr,rnd", "ir_clip": 9.0, "match_mass": True}},
    {"intrinsic": {"use_ir": "nsr", "match_mass": True}, "scale_rewards": "batch"},
    {"intrinsic": {"use_ir": "nsr", "ir_weight": "0.5"}, "scale_rewards": "batch"},
    {"intrinsic": {"use_ir": "nsr", "ir_schedule": "linear"}, "scale_rewards": "batch"},
    {"intrinsic": {"use_ir": "rnd,nsr", "ir_warmup_steps": 5}, "scale_rewards": "batch"},
    {"intrinsic": {"use_ir": "rarity", "rarity_partition": "bigram", "rarity_threshold": 0.5, "rarity_alpha": 1.0}},
    {"intrinsic": {"use_ir": "rarity", "rarity_partition": "likelihood", "rarity_tau": 0.5}},
    {"intrinsic": {"use_ir": "rarity", "rarity_partition": "embedding", "encoder": "policy"}},
    {"intrinsic": {"use_ir": "rarity,knn", "encoder": "policy"}},
    {"intrinsic": {"use_ir": "rarity", "rarity_partition": "random", "rarity_seed": 3, "rarity_clip_high": 2.0}},
    {"intrinsic": {"use_ir": "outcome"}, "questions": 799},
    {"intrinsic": {"use_ir": "outcome", "outcome_mode": "batch"}, "questions": 800},
    {"intrinsic": {"use_ir": "outcome", "outcome_baseline": "constant"}, "questions": 800},
    {"intrinsic": {"use_ir": "cfn"}, "steps": 21},
    {"intrinsic": {"use_ir": "cfn"}, "steps": 6, "steps_per_generation": 1},  # 24 generations
    {"intrinsic": {"use_ir": "cfn", "cfn_pretrain": 50}, "steps": 10},
    {"intrinsic": {"use_ir": "knn+", "explore_warmup": 0.5}},
]


@pytest.mark.parametrize(("name", "run"), each_flag(1))
def test_a_flag_of_another_mode_of_its_bonus_is_named(name, run):
    (line,) = lines(run | {name: other_value(BONUS_FLAGS[name])}, questions=20)
    assert line.startswith(f"no effect: --{name} ")


@pytest.mark.parametrize(("name", "run"), each_flag(2))
def test_a_flag_of_the_mode_of_its_bonus_is_not_named(name, run):
    assert not lines(run | {name: other_value(BONUS_FLAGS[name])}, questions=20)


@pytest.mark.parametrize("given", EFFECT, ids=str)
def test_a_setting_with_effect_is_not_named(given):
    assert not lines(**given)


def test_a_bonus_that_embeds_texts_is_an_owner_of_the_encoder():
    """By its default flags, or by the partition that needs it."""
    (encoder,) = (item for item in fields(BonusFlags) if item.name == "encoder")
    for partition in PARTITIONS:
        options = IntrinsicOptions(rarity_partition=partition)
        embeds = {name for name in REGISTRY if "text_embedding" in build_bonus(name, options).needs}
        assert embeds <= owners(encoder), partition


def test_what_a_script_sets_by_itself_is_not_named_and_what_differs_from_it_is():
    options = RunOptions()
    options.script_defaults = {"explore_warmup": 10.0}
    steps, config = 100, RunConfig(**PLAIN)
    named = [
        list(inert_settings(Settings(IntrinsicOptions(explore_warmup=value), options, config, [], steps, 150)))
        for value in (10.0, 20.0)
    ]
    assert not named[0] and "--explore_warmup 20.0: it is for knn+" in named[1][0]


@pytest.mark.parametrize("typed", [[], ["--explore_warmup", "20", "--eval_problems", "99"]], ids=["nothing", "two"])
@pytest.mark.parametrize("policy", ["tiny", "some/hub-name"])
@pytest.mark.parametrize(
    ("task", "types"), [("countdown", [CountdownOptions]), ("gsm8k", [GSM8KOptions, MathIntrinsicOptions])]
)
def test_only_flags_that_somebody_typed_are_named(task, types, policy, typed, monkeypatch):
    """And none of those that the script's own file of defaults holds, whose values are texts there."""
    flags = [f"--model_name={policy}", "--use_ir=no", "--do_eval=0", *typed]
    monkeypatch.setattr("sys.argv", [f"run_{task}.py", *flags])
    _, intrinsic, options, config = parse_options(task, *types)
    named = " ".join(inert_settings(Settings(intrinsic, options, config, [], 100, 150)))
    assert re.findall(r"--(\w+) [\d.]+:", named) == (["eval_problems", "explore_warmup"] if typed else [])


def test_a_bonus_that_another_one_holds_is_named():
    for names, said in (("knn,knn+", 1), ("knn+,cfn,memoryr", 1), ("knn+,knn-sent,shuffle:knn", 0), ("knn,noise", 0)):
        found = [line for line in lines({"use_ir": names}) if line.startswith("paid twice: ")]
        assert len(found) == said and all("knn+ pays all that knn pays" in line for line in found)


def test_every_flag_of_vllm_is_named_where_vllm_does_not_sample():
    flags = {name for name in RunConfig.__dataclass_fields__ if name.startswith("vllm_")}
    (rule,) = (rule for rule in RULES if "--use_vllm)" in rule.reason and "vllm_mode" in rule.flags)
    assert set(rule.flags.split()) == flags


def test_every_rule_names_flags_that_there_are():
    run = Settings(MathIntrinsicOptions(), RunOptions(), RunConfig(**PLAIN), [], 1, 1)
    for rule in RULES:
        for name in rule.flags.split():
            run.given(name)


@pytest.mark.parametrize(
    "name", ["countdown_tiny", "countdown", "gsm8k", "math", "igsm", "choice", "code", "sql", "sql_world"]
)
def test_the_defaults_of_the_scripts_have_an_effect(name):
    flags = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    known = {key: value for key, value in flags.items() if key in RunConfig.__dataclass_fields__}
    assert not lines(**known)
