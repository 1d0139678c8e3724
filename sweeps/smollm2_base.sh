#!/usr/bin/env bash
# The policy that the sweep of SmolLM2 begins with: a supervised start of 30 updates on questions of ARC-Challenge, which
# teaches to name an option in words, in tags: of letters this policy knows too little (40 updates on letters: 99 % of the
# completions well formed, answers at chance). Needs `make smollm2`; 15 minutes of one core, 12 GB.
# Nothing is done where it is there already. sweeps/smollm2.sh runs this.
#   bash sweeps/smollm2_base.sh [ARC: hub name, or folder with challenge_train.jsonl]
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-.venv/bin/python}
data=${1:-allenai/ai2_arc} folder=outputs/smollm2_base
if [[ -f $folder/sft/final/config.json ]]; then exit 0; fi
rm -rf "$folder" # what a start that was cut off has left
"$PYTHON" -m tasks.choice.traces --data "$data" --subset ARC-Challenge --n 480 --answer text --output "$folder/traces.jsonl"
"$PYTHON" run_sft.py --data "$folder/traces.jsonl" --model_name smollm2 --output_dir "$folder/sft" \
    --num_train_epochs 1 --per_device_train_batch_size 16 \
    --bf16 false --learning_rate 2e-4 --lr_scheduler_type cosine --warmup_steps 5 \
    --save_strategy no --logging_steps 5
