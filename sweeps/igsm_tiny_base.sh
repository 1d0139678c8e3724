#!/usr/bin/env bash
# The embedded policy of iGSM, tiny_igsm, made again: a new one of 1.1 million parameters learns plain worked solutions
# of 2 to 4 operations modulo 7, first of problems with at most 4 conditions, then with at most 8. About an hour of one
# core; what was cut off goes on where it stopped.
#   bash sweeps/igsm_tiny_base.sh
#   cp outputs/igsm_tiny_base/second/final/{*.json,*.jinja,*.safetensors} assets/tiny_igsm_policy
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-.venv/bin/python}
folder=outputs/igsm_tiny_base
space=(--min_op 2 --max_op 4 --modulus 7 --world brief --zero_drop 0.5 --traces plain)
"$PYTHON" -m tasks.igsm.generate --output "$folder/small.jsonl" --n 50000 --seed 1000 --max_edges 4 "${space[@]}"
"$PYTHON" -m tasks.igsm.generate --output "$folder/large.jsonl" --n 72000 --seed 1001 --max_edges 8 "${space[@]}"
if [[ ! -f $folder/start/tokenizer_config.json ]]; then
    rm -rf "$folder/start" # what a start that was cut off has left
    "$PYTHON" -m training.new_policy --data "$folder/large.jsonl" --output "$folder/start" --numbers whole \
        --hidden_size 128 --layers 4 --context 512
fi

# learn NAME FILE POLICY UPDATES SCHEDULE
learn() {
    if [[ -d $folder/$1/final ]]; then return; fi
    goes_on=()
    if compgen -G "$folder/$1/checkpoint-*" > /dev/null; then goes_on=(--resume auto); else rm -rf "${folder:?}/$1"; fi
    "$PYTHON" run_sft.py --data "$folder/$2.jsonl" --model_name "$3" --output_dir "$folder/$1" --max_steps "$4" \
        --lr_scheduler_type "$5" --learning_rate 2e-3 --warmup_steps 50 --weight_decay 0.01 --bf16 false \
        --per_device_train_batch_size 24 --train_sampling_strategy group_by_length --attn_implementation eager \
        --logging_steps 50 --save_steps 250 --save_total_limit 2 "${goes_on[@]}"
}

learn first small "$folder/start" 2000 constant_with_warmup
learn second large "$folder/first/final" 3000 cosine
