#!/usr/bin/env bash
# Does what Countdown shows depend on the tuning of plain GRPO? Some arms of sweeps/countdown.sh at twice the learning rate that
# its grid chose, five seeds; 8 samples of 512 validation problems each. 13 minutes a run of one core, or more, by what else runs.
#   bash sweeps/countdown_untuned.sh ["arms"] ["seeds"]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ knn+_reward cfn rnd}
seeds=${2:-0 1 2 3 4}

run() {
    flags="--use_ir=${1%_reward} --learning_rate=2e-4"
    if [[ $1 == *_reward ]]; then flags+=" --ir_level=reward"; fi
    echo "$1_seed$2 $flags --seed=$2 --eval_samples=8 --eval_greedy=false --bf16=false"
}

in_order "no knn+" "$arms" "$seeds" | side_by_side run_countdown.py results/countdown_untuned
