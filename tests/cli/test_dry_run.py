"""--dry_run of the entry scripts: settings by group, one OK line per check, one step tried, nothing written."""

import json
import re
import shutil
import sys

import pytest

import run_countdown
import run_gsm8k
from cli.dry_run import packages
from cli.help import GROUPS
from common.config_file import PRESETS
from common.errors import run_cli
from policy.chat import render
from policy.load import EMBEDDED, load_policy, load_tokenizer
from tasks.countdown.problems import ProblemSpace, add_prompts, generate
from tests.processes import ROOT, run_python
from training.checkpoint import mark_complete

CHECKS = ["flags", "packages", "device", "model", "data", "rewards", "end", "bonuses", "run folder", "memory"]
TOY = ["--train_problems", "64", "--eval_problems", "8", "--bs", "2", "--num_generations", "4", "--L", "12"]


@pytest.fixture
def dry_run(monkeypatch, capsys, tmp_path):
    """Runs an entry script with --dry_run in an empty folder: (exit code, standard output, standard error).

    The last check, which trains, is left out unless ``tries_step``.
    """

    def dry_run(*flags, script=run_countdown, tries_step=False):
        if not tries_step:
            monkeypatch.setattr("cli.dry_run.report", lambda *args: ["not tried"])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", "--dry_run", *flags])
        code = 0
        try:
            run_cli(script.main)
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return dry_run


def prompt_ids():
    """Token ids of every rendered training prompt."""
    tokenizer = load_tokenizer("tiny")
    problems = generate(64, "train", 42, ProblemSpace(min_numbers=3, max_numbers=3, max_number=15, max_value=99))
    texts = [render(row["prompt"], tokenizer) for row in add_prompts(problems, "chat")]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def passed(output):
    return re.findall(r"^OK  ([\w ]+):", output, re.MULTILINE)


def test_a_good_run_passes_every_check_prints_its_settings_by_group_and_writes_nothing(dry_run, tmp_path):
    code, output, _ = dry_run(*TOY, "--use_ir=knn+", "--encoder=policy", "--learning_rate=3e-5", tries_step=True)
    assert code == 0 and passed(output) == CHECKS and "no effect" not in output
    assert output.endswith("the run fits: the worst batch was trained on\n")
    titles = re.findall(r"^(\w.*):$", output, re.MULTILINE)
    assert titles == list(GROUPS)
    assert re.search(r"^optimisation:\n(  .*\n)*  learning_rate +3e-05$", output, re.MULTILINE)
    assert "OK  data: 64 training problems, 8 held-out problems" in output
    assert "OK  bonuses: knn+ (advantage, weight 0.5)" in output
    assert re.search(
        r"^OK  run folder: outputs/countdown/tiny_knn\+_seed42_\S*learning_rate3e-05\S*, new$", output, re.MULTILINE
    )
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_with_a_flag_of_another_folder_names_the_checkpoint_it_does_not_find(dry_run, tmp_path):
    _, output, _ = dry_run(*TOY, "--seed=4")
    stem = re.search(r"^OK  run folder: outputs/countdown/(\S+), new$", output, re.MULTILINE)[1]
    for name in (stem, f"{stem}_beta0", "tiny_no_seed42", "tiny_no_seed4_lora"):
        (tmp_path / "outputs" / "countdown" / name / "checkpoint-20").mkdir(parents=True)
        mark_complete(tmp_path / "outputs" / "countdown" / name / "checkpoint-20")
    code, output, _ = dry_run(*TOY, "--seed=4", "--learning_rate=3e-4", "--resume=auto")
    (line,) = [line for line in output.splitlines() if "under other flags" in line]
    assert code == 0 and line.startswith("outputs/countdown/tiny_no_seed4_")
    assert "learning_rate0.0003" in line.partition("in this run's: ")[2]
    assert line.endswith("/checkpoint-20 to see what differs") and "seed42" not in line and "_lora" not in line
    _, output, _ = dry_run(*TOY, "--seed=5", "--resume=auto")
    assert "the run begins at step 0" in output and "under other flags" not in output


def test_settings_without_effect_are_named(dry_run):
    _, output, _ = dry_run(*TOY, "--epsilon_high=0.28")
    assert "no effect: --epsilon_high 0.28: each generation serves one update" in output


def test_other_flags_of_trl_are_shown_where_they_are_changed(dry_run):
    _, output, _ = dry_run(*TOY, "--dataloader_num_workers=2")
    assert re.search(r"^other flags of TRL and transformers:\n  dataloader_num_workers +2$", output, re.MULTILINE)


def test_weights_that_cannot_be_read_are_found_after_every_other_check(dry_run, tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(EMBEDDED, policy)
    (policy / "model.safetensors").write_bytes(b"no weights")
    code, output, errors = dry_run(*TOY, f"--model_name={policy}", tries_step=True)
    assert code == 2 and passed(output) == CHECKS[:-1]
    assert f"--model_name={str(policy)!r}" in errors


def test_memory_and_time_are_those_of_the_longest_prompts_and_completions(dry_run, monkeypatch):
    rows, lengths = [], []

    def correctness(prompts, completion_ids, **columns):
        rows.append(len(prompts))
        lengths.extend(map(len, completion_ids))
        return [1.0, 0.0] * (len(prompts) // 2)

    monkeypatch.setattr("training.fit.report.correctness", correctness)
    code, output, _ = dry_run(*TOY, "--max_steps=50", tries_step=True)
    assert code == 0 and rows == [8, 8] and set(lengths) == {12}
    prompt = int(re.search(r"activations of 2 x (\d+) and 8 x 12 tokens", output)[1])
    assert prompt == max(len(ids) for ids in prompt_ids())
    assert re.search(r"at most at once +\d+\.\d\d GiB", output) and re.search(r"measured peak .* \d+\.\d\d GiB", output)
    seconds = float(re.search(r"([\d.]+) s for a step on the worst batch, 50 steps", output)[1])
    assert seconds > 0


def test_what_is_too_much_for_this_machine_is_said_and_not_tried(dry_run, monkeypatch):
    monkeypatch.setattr("training.fit.report.available_bytes", lambda device: 10**6)
    monkeypatch.setattr("training.fit.report.worst_step", lambda *args: pytest.fail("a step was tried"))
    code, output, _ = dry_run(*TOY, tries_step=True)
    assert code == 0 and "should not fit; take less by" in output and "--micro_batch 4" in output
    assert "no step was tried" in output and output.endswith("by the estimate the run does not fit\n")


def test_size_of_the_policy_and_memory_of_its_training_state(dry_run):
    parameters = load_policy("tiny").num_parameters()
    _, output, _ = dry_run(*TOY, "--beta=0")
    gib = parameters * 16 / 2**30
    assert f"{parameters / 1e6:.1f} million parameters, {gib:.2f} GiB (weights, gradients, AdamW)," in output
    _, output, _ = dry_run(*TOY, "--beta=0.1", "--dtype=bfloat16")
    assert f"{parameters * 10 / 2**30:.2f} GiB (weights, gradients, AdamW, reference)" in output
    _, output, _ = dry_run(*TOY, "--lora", "--dtype=float32")
    assert f"{parameters * 4 / 2**30:.2f} GiB (weights)" in output


@pytest.mark.fault("F20")
def test_prompts_get_what_the_context_leaves_beside_the_completion(dry_run):
    _, output, _ = dry_run(*TOY, "--L=600", "--max_prompt_length=512")
    assert "prompts of up to 424 tokens" in output


BAD = {
    "no such model": (["--model_name=nowhere/policy"], "nowhere/policy", 3),
    "no room for a prompt": (["--L=1024"], "--L=1024 leaves no room", 3),
    "no such data": (["--data=nowhere.jsonl"], "nowhere.jsonl", 4),
    "too few problems": (["--train_problems=64", "--bs=100"], "64 training problems cannot fill", 4),
    "too long a completion for the bonus": (
        ["--use_ir=rnd", "--rnd_mode=reference", "--rnd_response_length=5"],
        "--rnd_response_length=5",
        7,
    ),
    "no such encoder": (["--use_ir=knn", "--encoder=./nowhere"], "nowhere", 7),
    "no encoder for the clusters of rarity": (
        ["--use_ir=rarity", "--rarity_partition=embedding", "--encoder=./nowhere"],
        "nowhere",
        7,
    ),
    "a majority of two": (["--use_ir=majority", "--num_generations=2"], "--num_generations=2: in a group of two", 7),
    "no such checkpoint": (["--resume=nowhere"], "--resume='nowhere'", 7),
}


@pytest.mark.parametrize("flags, message, checks", BAD.values(), ids=BAD)
def test_the_first_bad_setting_ends_with_exit_code_2_after_the_checks_before_it(flags, message, checks, dry_run):
    code, output, errors = dry_run(*TOY, *flags)
    assert code == 2 and passed(output) == CHECKS[:checks]
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize("names", ["rarity", "shuffle:rarity"])
def test_approaches_that_the_task_cannot_tell_are_refused_before_anything_is_read(names, dry_run):
    code, output, errors = dry_run("--model_name=nowhere/policy", f"--use_ir={names}", script=run_gsm8k)
    assert code == 2 and not passed(output)
    (line,) = errors.strip().splitlines()[-1:]
    assert "--rarity_partition=exact needs a normal form" in line and "countdown and igsm do" in line


def test_rewards_that_an_ideal_answer_does_not_get_are_refused_before_any_policy_is_read(dry_run, tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(EMBEDDED, policy, ignore=shutil.ignore_patterns("*.safetensors"))
    (policy / "model.safetensors").write_bytes(b"not weights")
    (policy / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}<think>")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"#### {n}"}) + "\n" for n in range(64)))
    flags = [*TOY[:-2], "--L=12", f"--model_name={policy}", f"--data={rows}"]
    code, output, errors = dry_run(*flags, script=run_gsm8k)
    assert code == 2 and passed(output) == CHECKS[:5]
    assert "an ideal answer under --prompt_type=reasoning gets" in errors.splitlines()[-1]
    code, output, _ = dry_run(*flags, "--prompt_type=think", script=run_gsm8k)
    assert code == 0 and passed(output) == CHECKS


def test_a_run_folder_in_use_is_refused(dry_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    code, _, errors = dry_run(*TOY, "--output_dir=run")
    assert code == 2 and "already holds a run" in errors
    code, output, _ = dry_run(*TOY, "--output_dir=run", "--resume=auto")
    assert code == 0 and "OK  run folder: run, new" in output


def test_versions_other_than_the_pinned_ones_are_named(monkeypatch, tmp_path):
    assert packages().startswith("torch ") and "tested with" not in packages()
    pins = (ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(re.sub(r"\btrl==\S+", "trl==0.14.0", pins))
    monkeypatch.setattr("cli.dry_run.REQUIREMENTS", tmp_path / "requirements.txt")
    assert re.search(r"trl \S+ \(tested with ==0.14.0\), accelerate [\d.]+,", packages())


def test_a_preset_with_flags_on_top_says_which_values_it_loses(dry_run, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": f"{n} + 2?", "answer": f"#### {n + 2}"}) + "\n" for n in range(40)))
    flags = ["--model_name=tiny", f"--data={data}", "--encoder=policy", "--bs=2", "--L=50"]
    code, output, _ = dry_run("--config", str(PRESETS / "memory_r_gsm8k.yaml"), *flags, script=run_gsm8k)
    assert code == 0 and passed(output) == CHECKS
    replaced = re.findall(r"^(\w+): \S*memory_r_gsm8k.yaml says (\S+), the command line (\S+);", output, re.MULTILINE)
    assert ("L", "200", "50") in replaced and {name for name, *_ in replaced} == {"model_name", "data", "encoder", "L"}
    assert "tiny_knn+_seed42_memory_r_gsm8k_data-rows.jsonl_encoder-policy_L50, new" in output
    assert re.search(r"^OK  flags: .*memory_r_gsm8k.yaml", output, re.MULTILINE)


def test_from_the_shell(tmp_path):
    """Of which only an interpreter of its own says what it imports: without a bonus no text encoder."""
    flags = [*TOY, "--use_ir=no", "--dry_run"]
    result = run_python("-X", "importtime", ROOT / "run_countdown.py", *flags, cwd=tmp_path)
    assert passed(result.stdout) == CHECKS and not list(tmp_path.iterdir())
    imported = set(re.findall(r"\| +([\w.]+)$", result.stderr, re.MULTILINE))
    assert "trl" in imported and not {"faiss", "sentence_transformers"} & imported
