"""Presets: every one trains at toy size with its own values; --config files are checked; flags win over them."""

import importlib
import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.preset_table import OFFERED, OPTIONS, card_of, recipe
from cli.parse import parse_options
from common.config_file import PRESETS, did_you_mean, preset_names, read_config
from common.devices import GIB
from common.errors import UserError
from intrinsic import build_bonuses
from tasks.countdown.options import CountdownOptions
from training.fit.estimate import estimate

ROOT = Path(__file__).parents[3]
FILES = sorted(PRESETS.glob("*.yaml"))
RECIPES = [file for file in FILES if not file.stem.endswith("_24gb")]
ON_24GB = {
    *("memory_r_gsm8k", "memory_r_aimo", "intuitor_math_gsm8k", "intuitor_math_math500", "bridge_igsm"),
    *("intuitor_reasoning_arc", "intuitor_code_humaneval", "intuitor_code", "intuitor_default", "merci_sql"),
}
TABLE = ROOT / "benchmarks" / "results" / "preset_table.json"
ALL = {
    *(f"{name}_24gb" for name in ON_24GB),
    *ON_24GB,
    *("imentor_countdown_3to4", "imentor_countdown_4", "merci_math", "cde", "passk", "memory_r_countdown"),
}
# What a policy of a million parameters needs in place of the recipe's: data at hand, little of everything.
TOY = {
    "model_name": "tiny",
    "encoder": "policy",
    "cfn_pretrain": 1,
    "max_prompt_length": 992,
    "bs": 2,
    "gc": 1,
    "micro_batch": 0,
    "num_generations": 8,
    "generation_batch_size": 16,
    "L": 8,
    "max_steps": 1,
    "do_eval": "false",
    "eval_steps": 0,
    "save_strategy": "no",
}
ROWS = {
    "run_gsm8k.py": [{"question": f"What is {n} and 2?", "answer": f"#### {n + 2}"} for n in range(8)],
    "run_math.py": [{"problem": f"What is ${n} + 2$?", "answer": str(n + 2)} for n in range(8)],
    "run_choice.py": [{"question": f"{n} + 1?", "choices": [str(n + 1), "x"], "answer": 0} for n in range(8)],
    "run_code.py": [
        {"prompt": f"f{n}", "code": "def f(x): ...", "test_list": [f"assert f({n}) == 0"], "test_imports": []}
        for n in range(8)
    ],
    "run_sql.py": [{"db": db, "question": f"{n}?", "sql": f"SELECT x + {n} FROM t"} for n in range(8) for db in "ab"],
    "run_countdown.py": [{"nums": [n, n + 1, 3], "target": 2 * n + 4} for n in range(1, 60)],
}
# run_igsm.py makes its problems; these are short enough for a policy that spells English letter by letter.
EASY = {
    "min_op": 4,
    "max_op": 4,
    "ood_min_op": 5,
    "ood_max_op": 5,
    "max_edges": 12,
    "train_problems": 24,
    "eval_problems": 4,
}


def make_database(path):
    path.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t (x INT); INSERT INTO t VALUES (1), (2)")
    connection.close()


def train(script, monkeypatch, *flags):
    """Run the entry script in this process, but for its plots, which take longer than the rest."""
    module = importlib.import_module(script.removesuffix(".py"))
    monkeypatch.setattr(module, "write_report", lambda folder: folder)
    monkeypatch.setattr(sys, "argv", [str(ROOT / script), *flags])
    module.main()


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_preset_takes_a_step_with_its_own_values(file, monkeypatch, tmp_path):
    preset = yaml.safe_load(file.read_text())
    script = preset.pop("script")
    data = tmp_path / "rows.jsonl"
    if script in ROWS:
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[script]))
    for db in "ab":  # of the questions in SQL
        make_database(tmp_path / "databases" / f"{db}.sqlite")
    toy = TOY | ({"data": data} if script in ROWS else EASY)
    monkeypatch.chdir(tmp_path)
    train(script, monkeypatch, "--config", str(file), *(f"--{name}={value}" for name, value in toy.items()))

    (folder,) = (tmp_path / "outputs" / script.removeprefix("run_").removesuffix(".py")).iterdir()
    assert f"_seed{preset.get('seed', 42)}_{file.stem}" in folder.name
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    assert len(steps) == 1 and (preset["use_ir"] == "no" or f"ir/{preset['use_ir']}/raw" in steps[0])
    options = json.loads((folder / "run.json").read_text())["options"]
    used = {name: value for group in options.values() for name, value in group.items()}
    assert used["config_file"] == str(file)
    for name in preset.keys() - toy.keys():
        assert used[name] == preset[name] or str(used[name]) == str(float(preset[name])), name


def test_the_presets_are_those_of_the_published_recipes():
    assert set(preset_names()) == ALL


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_preset_names_its_source_its_deviations_and_its_script(file):
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert re.search(r"arXiv \d{4}\.\d{5}", comments[0])
    assert any(line.startswith("# - ") for line in comments[comments.index("# Deviations:") :])
    assert (ROOT / yaml.safe_load(file.read_text())["script"]).is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_preset_is_valid_at_its_own_size(file, monkeypatch):
    script = yaml.safe_load(file.read_text())["script"]
    monkeypatch.setattr(sys, "argv", [script, "--config", str(file)])
    _, intrinsic, options, config = parse_options(script.removeprefix("run_").removesuffix(".py"), *OPTIONS[script])
    for bonus in build_bonuses(intrinsic):
        bonus.check(config.num_generations, config.L)
    assert config.generation_batch_size % config.num_generations == 0
    assert options.max_prompt_length + config.L <= 4096, "the context of the smallest of the recipes' models"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_preset_fits_its_gpu_at_full_length_by_the_estimate(file):
    # The recipe of the smallest policy and shortest completions is for both.
    card = 24 if file.stem == "memory_r_countdown" else card_of(file)
    peak = estimate(*recipe(file)).peak
    assert peak <= OFFERED[card] * GIB
    published = json.loads(TABLE.read_text())["bytes"][file.stem]["as it is"]
    assert published == pytest.approx(peak, rel=0.01), "make it again: python -m benchmarks.preset_table"


def test_the_published_table_has_every_preset():
    assert set(json.loads(TABLE.read_text())["bytes"]) == ALL


def test_every_recipe_of_a_policy_up_to_1_5b_is_there_for_24_gb():
    small = {
        file.stem
        for file in RECIPES
        if float(re.search(r"-([\d.]+)B", yaml.safe_load(file.read_text())["model_name"])[1]) <= 1.5
    }
    assert small == ON_24GB | {"memory_r_countdown"}


@pytest.mark.parametrize("name", sorted(ON_24GB))
def test_the_variant_for_24_gb_is_the_recipe_but_for_memory_and_lora(name):
    whole, variant = (yaml.safe_load((PRESETS / f"{name}{end}.yaml").read_text()) for end in ("", "_24gb"))
    changed = {key for key in whole.keys() | variant.keys() if whole.get(key) != variant.get(key)}
    lora = {"lora", "lora_r", "lora_alpha", "learning_rate"} if "lora" in changed else set()
    # Half of an accumulation step, which the loss bnpo notices, as the comments of these presets say.
    halves = {"micro_batch"} if whole["loss_type"] == "bnpo" else set()
    assert changed - halves == {"sampling_batch"} | lora


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """`parse_options` of run_countdown.py on a command line, with a --config file of the given text if any."""

    def parse(*flags, config=None):
        if config is not None:
            (tmp_path / "flags.yaml").write_text(config)
            flags = ("--config", str(tmp_path / "flags.yaml"), *flags)
        monkeypatch.setattr(sys, "argv", ["run_countdown.py", *flags])
        return parse_options("countdown", CountdownOptions)

    return parse


@pytest.mark.parametrize("form", ["--config={}", "--config {}"])
def test_an_unknown_preset_is_refused_with_the_list_of_presets(form, parse):
    with pytest.raises(UserError, match="configs/presets/memory.yaml") as error:
        parse(*form.format("configs/presets/memory.yaml").split())
    assert all(name in str(error.value) for name in ALL)


def test_a_preset_of_another_script_is_refused(parse):
    with pytest.raises(UserError, match=r"is for run_gsm8k.py, not for run_countdown.py"):
        parse("--config", str(PRESETS / "memory_r_gsm8k.yaml"))


@pytest.mark.parametrize(
    "text, message",
    {
        "a typing error": ("learning_rat: 1", "'learning_rat'.*did you mean learning_rate"),
        "a flag that ours takes the place of": ("max_completion_length: 5", "'max_completion_length'.*--L"),
        "a list": ("- bs", "flag: value"),
        "an empty file": ("", "flag: value"),
        "no YAML": ("bs: [", "not YAML"),
        "a number that is none": ("bs: many", "--bs.*'many'"),
        "half a prompt": ("bs: 2.5", "--bs.*'2.5'"),
        "a value out of range": ("bs: 0", "--bs=0"),
        "a key twice": ("bs: 2\nL: 5\nbs: 3", "'bs' stands twice"),
        "a mapping": ("use_ir: {name: cfn}", "'use_ir'.*mapping"),
        "a list for one number": ("bs: [2, 3]", "'bs'.*list"),
        "a list in a list": ("use_ir: [[cfn]]", "'use_ir'.*plain value"),
        "a number left out": ("learning_rate:", "'learning_rate'.*no value"),
        "a date for a number": ("bs: 2026-11-25", "--bs.*'2026-11-25'"),
        "a tag of Python": ("bs: !!python/name:os.system 2", "'bs'.*tag"),
        "a tracker that there is none of": ("report_to: [wandb, tensorbord]", "'tensorbord' is no tracker"),
        "a word that no choice has": ("save_strategy: on", "on is not a valid SaveStrategy"),
    }.values(),
)
def test_a_bad_config_file_is_refused_in_one_sentence(text, message, parse):
    with pytest.raises(UserError, match=message) as error:
        parse(config=text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, typed",
    [
        ("use_ir: no", "--use_ir no"),
        ("use_ir: off", "--use_ir no"),
        ("use_ir:", "--use_ir no"),
        ("use_ir: [knn, sc]\nir_weight: [1, .5]", "--use_ir knn,sc --ir_weight 1,.5"),
        ("use_ir:\n- cfn", "--use_ir cfn"),
        ("save_strategy: no", "--save_strategy no"),
        ("save_strategy: False", "--save_strategy no"),
        ("report_to:", "--report_to none"),
        ("report_to: no", "--report_to none"),
        ("report_to: []", "--report_to none"),
        ("report_to: tensorboard", "--report_to tensorboard"),
        ("report_to: [wandb, tensorboard]", "--report_to wandb tensorboard"),
        ("report_to: wandb, tensorboard", "--report_to wandb,tensorboard"),
        ("lora: yes\nlora_target_modules: [q_proj, v_proj]", "--lora --lora_target_modules q_proj,v_proj"),
        ("do_eval: off\nuse_cpu: On", "--do_eval 0 --use_cpu 1"),
        ("learning_rate: 1e-4\nmax_steps: 1e3", "--learning_rate 1e-4 --max_steps 1000"),
        ("eval_steps:\nmin_p: none", ""),
        ("run_name: 2026-11-25", "--run_name 2026-11-25"),
        ("scale_rewards: no", "--scale_rewards none"),
        ("lr_scheduler_kwargs: {min_lr_rate: 0.1}", '--lr_scheduler_kwargs {"min_lr_rate":0.1}'),
    ],
)
def test_a_file_means_what_a_person_would_have_typed(text, typed, parse):
    from_file, from_line = parse(config=text), parse(*typed.split())
    # A file gives the run its own name where flags give theirs.
    from_file[2].config_file, from_line[2].name_parts = "", []
    assert list(map(settings, from_file)) == list(map(settings, from_line))


def settings(options) -> dict:
    """What the flags say, without what transformers builds from them."""
    hidden = ("accelerator_config", "distributed_state")
    return {name: value for name, value in vars(options).items() if name not in hidden and not name.startswith("_")}


def test_a_file_wins_over_the_scripts_defaults_and_a_flag_over_the_file_and_says_so(parse, capsys):
    *_, config = parse(
        "--learning_rate", "2e-5", "--bs=4", "--no_do_eval", config="learning_rate: 1e-5\nbs: 4\nL: 50\ndo_eval: true"
    )
    assert (config.learning_rate, config.bs, config.L, config.do_eval) == (2e-5, 4, 50, False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2, "one line for each value that differs, none for bs"
    assert re.match(r"learning_rate: \S*flags.yaml says 1e-05, the command line 2e-05", lines[0])
    assert re.match(r"do_eval: .* True, the command line False", lines[1])


def test_the_policy_of_a_preset_decides_the_scripts_defaults(parse):
    task, *_ = parse(config="min_numbers: 3")
    assert task.max_number == 15, "configs/countdown_tiny.yaml"
    task, *_ = parse(config="model_name: Qwen/Qwen2.5-0.5B-Instruct")
    assert task.max_number == 99, "configs/countdown.yaml"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--use_irr=no"], "'--use_irr=no' is not a flag.*--use_ir"),
        (["--lr=1"], "'--lr=1' is not a flag .did you mean --learning_rate"),
        (["--batch-size=1"], "'--batch-size=1' is not a flag .did you mean --bs"),
        (["--group_size", "4"], "'--group_size' is not a flag .did you mean --num_generations"),
        (["--max_completion_length=5"], "'--max_completion_length=5'.*--L"),
        (["--max-completion-length", "5"], "'--max-completion-length'.*--L"),
        (["--bs", "many"], "--bs.*'many'"),
        (["--bs"], "--bs"),
    ],
)
def test_bad_flags_are_refused_in_one_sentence_without_a_page_of_usage(flags, message, parse, capsys):
    with pytest.raises(UserError, match=message) as error:
        parse(*flags)
    assert "\n" not in str(error.value) and not capsys.readouterr().err


def test_keys_like_none_get_no_suggestion():
    assert did_you_mean("zzzz", ["learning_rate"]) == ""


def test_a_config_without_script_is_for_every_script(tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text("bs: 3")
    assert read_config(str(file), "run_gsm8k.py") == read_config(str(file), "run_countdown.py") == {"bs": "3"}
