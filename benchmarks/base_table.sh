#!/usr/bin/env bash
# Where a policy stands before training: 8 samples at temperature 0.8 under two prompts each of GSM8K, SVAMP, Countdown
# with 2 and 3 numbers, MATH-500, ARC-Easy and Spider, and its ranking of ARC-Easy's options; one greedy answer to iGSM's
# short problems where that task is named. An evaluation that is there is not run again, and one that was cut off goes on.
#   bash benchmarks/base_table.sh [policy] [folder with gsm8k, svamp, math500, arc, spider] [tasks]
#   bash benchmarks/base_table.sh tiny_igsm "" igsm
# Without a folder the data comes from the hub. Writes benchmarks/results/base_table_<policy>.md and .json, where the slashes
# of a policy's path are underscores. Where evaluations are of other weights than the policy's, nothing is run.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python=${PYTHON:-.venv/bin/python}
policy=${1:-smollm2} data=${2:-} tasks=${3:-arc_easy spider countdown svamp gsm8k math500}
called=${policy#/} called=${called%/} called=${called//\//_} # by the whole path, as many policies are called final
out=outputs/base_table/$called
mkdir -p "$out"

tabulate() { # path of the table, without extension
    "$python" -m benchmarks.base_table --model_name "$policy" --evaluations "$out" --output "$1"
}

evaluate() { # name, task, place in the data folder, flags
    name=$1 task=$2 place=$3
    shift 3
    if [[ " $tasks " != *" $task "* || -f $out/$name.json ]]; then return; fi
    source=()
    if [[ -n $data && -n $place ]]; then source=(--data "$data/$place"); fi
    "$python" run_eval.py --task "$task" --model_name "$policy" "${source[@]}" --output "$out/$name.json" "$@"
}

if compgen -G "$out/*.json" > /dev/null; then tabulate "$out" > /dev/null; fi # refuses those of other weights
samples="--n 8 --temperature 0.8 --batch_size 128"
evaluate arc_easy_rank arc_easy arc --rank --limit 300
for prompt in reasoning plain; do
    evaluate "arc_easy_$prompt" arc_easy arc $samples --limit 100 --max_new_tokens 96 --prompt_type $prompt
    evaluate "countdown2_$prompt" countdown "" $samples --limit 200 --max_new_tokens 96 --prompt_type $prompt --split 2
    evaluate "countdown3_$prompt" countdown "" $samples --limit 200 --max_new_tokens 96 --prompt_type $prompt --split 3
    evaluate "spider_$prompt" spider spider $samples --limit 100 --max_new_tokens 96 --prompt_type $prompt
done
for prompt in reasoning qwen25-math-cot; do
    evaluate "svamp_$prompt" svamp svamp/test.jsonl $samples --limit 300 --max_new_tokens 128 --prompt_type $prompt
    evaluate "gsm8k_$prompt" gsm8k gsm8k/test.jsonl $samples --limit 200 --max_new_tokens 192 --prompt_type $prompt
    evaluate "math500_$prompt" math500 math500/test.jsonl $samples --limit 100 --max_new_tokens 192 --prompt_type $prompt
done
for split in tiny tiny:5-6; do
    evaluate "igsm_${split/:/_}" igsm "" --split $split
done
tabulate "benchmarks/results/base_table_$called"
