#!/usr/bin/env bash
# Countdown with the embedded policy: bonuses and controls against plain GRPO with the settings that suit it
# (benchmarks/plans/countdown.md), five seeds; 64 samples of 256 test problems each. Ten minutes a run of one free core. The
# order keeps the table useful at any time: plain GRPO and Memory-R+ first, then one seed of each arm, then the rest.
#   bash sweeps/countdown.sh ["arms"] ["seeds"]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ no_temperature0.8 no_entropy_coef0.01 knn+_reward cfn rnd knn sc repexp entropy-adv passk maxrl rarity outcome noise shuffle:knn+ shuffle:repexp}
seeds=${2:-0 1 2 3 4}

run() {
    flags="--use_ir=${1%_reward}"
    if [[ $1 == *_reward ]]; then flags+=" --ir_level=reward"; fi
    if [[ $1 == no_temperature* ]]; then flags="--use_ir=no --temperature=${1#no_temperature}"; fi
    if [[ $1 == no_entropy_coef* ]]; then flags="--use_ir=no --entropy_coef=${1#no_entropy_coef}"; fi
    if [[ $1 == *outcome ]]; then flags+=" --outcome_mode=batch"; fi # counts over training pay nothing in one epoch
    if [[ $1 == sc ]]; then flags+=" --stop_on_collapse=false"; fi # a run that collapses counts
    echo "${1//:/-}_seed$2 $flags --seed=$2 --eval_split=test --eval_problems=256 --eval_samples=64 --eval_greedy=false" \
        "--bf16=false" # the same on every machine
}

in_order "no knn+" "$arms" "$seeds" | side_by_side run_countdown.py results/countdown
