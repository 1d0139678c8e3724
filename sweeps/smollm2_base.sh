#!/usr/bin/env bash
# What the sweeps of SmolLM2 begin with: a supervised start on one pass over traces, which teaches the shape of an answer.
#   countdown: 960 traces of up to three attempts, 60 updates; 15 minutes of two cores.
#   arc: 480 questions of ARC-Challenge, whose answer is named in words: of letters this policy knows too little (40 updates
#        on letters: 99 % of the completions well formed, answers at chance). 30 updates; 20 minutes of one core, 12 GB.
#   gsm8k: 640 solutions of GSM8K of up to three lines, 40 updates; 40 minutes of one core. No sweep goes on from it.
# Needs `make smollm2`. Nothing is done where it is there already. sweeps/smollm2.sh and sweeps/smollm2_arc.sh run this.
#   bash sweeps/smollm2_base.sh countdown
#   bash sweeps/smollm2_base.sh arc [ARC: hub name, or folder with challenge_train.jsonl]
#   bash sweeps/smollm2_base.sh gsm8k [GSM8K: hub name, folder or file]
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-.venv/bin/python}
task=$1 folder=outputs/smollm2_base/$1
if [[ -f $folder/sft/final/config.json ]]; then exit 0; fi
rm -rf "$folder" # what a start that was cut off has left
case $task in
    countdown) traces=(tasks.countdown.bridge --style injected --n 960 --min_numbers 2 --max_numbers 3 --max_number 30
        --p_explore 0.5 --max_attempts 3 --p_analysis 0) ;;
    arc) traces=(tasks.choice.traces --data "${2:-allenai/ai2_arc}" --subset ARC-Challenge --n 480 --answer text) ;;
    gsm8k) traces=(tasks.math.traces --data "${2:-openai/gsm8k}" --n 640 --max_lines 3) ;;
    *) echo "$task: use countdown, arc or gsm8k" >&2 && exit 2 ;;
esac
"$PYTHON" -m "${traces[@]}" --output "$folder/traces.jsonl"
"$PYTHON" run_sft.py --data "$folder/traces.jsonl" --model_name smollm2 --output_dir "$folder/sft" \
    --num_train_epochs 1 --per_device_train_batch_size 16 \
    --bf16 false --learning_rate 2e-4 --lr_scheduler_type cosine --warmup_steps 5 \
    --save_strategy no --logging_steps 5
