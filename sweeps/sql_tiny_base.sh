#!/usr/bin/env bash
# The policy that sql_tiny begins with: a new one of 1.1 million parameters, warm-started on traces of which 40 in 100 are
# right. Four minutes of one core; nothing is done where it is there already. `make sql_tiny` and sweeps/sql_tiny.sh run this.
#   bash sweeps/sql_tiny_base.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-.venv/bin/python}
folder=outputs/sql_tiny_base
if [[ -f $folder/warm_start/final/config.json ]]; then exit 0; fi
rm -rf "$folder" # what a start that was cut off has left
"$PYTHON" -m tasks.sql.tiny.traces --output "$folder/traces.jsonl" --n 12800
"$PYTHON" -m training.new_policy --data "$folder/traces.jsonl" --output "$folder/start" --numbers whole --hidden_size 128 --layers 4 --context 256
"$PYTHON" run_sft.py --data "$folder/traces.jsonl" --model_name "$folder/start" --output_dir "$folder/warm_start" \
    --num_train_epochs 1 --per_device_train_batch_size 32 \
    --bf16 false --learning_rate 2e-3 --lr_scheduler_type cosine --warmup_steps 50 --weight_decay 0.01 \
    --save_strategy no --logging_steps 100
