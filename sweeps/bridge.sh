#!/usr/bin/env bash
# BRIDGE on Countdown with the embedded policy (docs/bridge.md): traces of the same problems, plain or with injected
# behaviours, a supervised start on them, then plain GRPO; three seeds of traces, start and GRPO; 8 samples of 512
# problems before and after GRPO. The starts are made first, some minutes each; one that is there is not made again.
#   bash sweeps/bridge.sh ["arms"] ["seeds"]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-plain injected}
seeds=${2:-0 1 2}
export STARTS=outputs/sweeps/bridge/starts

start() {
    folder=$STARTS/$1_seed$2
    if [[ -d $folder/final ]]; then exit 0; fi
    mkdir -p "$folder"
    if ! {
        "$PYTHON" -m tasks.countdown.bridge --style "$1" --n 2000 --seed $((100 + $2)) --output "$folder.jsonl" &&
            "$PYTHON" run_sft.py --data "$folder.jsonl" --seed "$2" --per_device_train_batch_size 64 --num_train_epochs 5 \
                --learning_rate 5e-4 --lr_scheduler_type cosine --warmup_steps 10 --save_strategy no --output_dir "$folder"
    } >> "$folder.log" 2>&1; then
        echo "$1_seed$2: the supervised start failed, see $folder.log"
        exit 1
    fi
}
export -f start

each() {
    for seed in $seeds; do for arm in $arms; do "$1" "$arm" "$seed"; done; done
}

run() {
    echo "$1_seed$2 --model_name=$STARTS/$1_seed$2/final --use_ir=no --seed=$2 --config=configs/countdown_tiny.yaml" \
        "--gc=1 --attn_implementation=eager --L=256 --eval_problems=512 --eval_samples=8 --eval_greedy=false"
}

each echo | xargs -P "${SIDE_BY_SIDE:-2}" -L 1 bash -c 'set -e; start "$@"' _
each run | side_by_side run_countdown.py results/bridge
