#!/usr/bin/env bash
# What plain GRPO on Countdown is tuned over, before anything is compared with it: learning rate and KL penalty, on
# validation problems and on seeds that sweeps/countdown.sh does not have (benchmarks/plans/countdown.md). The run called
# `no` has the values of configs/countdown_tiny.yaml. Ten minutes a run of one free core; 8 samples of 512 problems.
#   bash sweeps/countdown_grid.sh ["bonus"] ["seeds"]
#   python -m analysis.summary outputs/sweeps/countdown_grid/*_seed*/
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
bonus=${1:-no}
seeds=${2:-100 101}

for seed in $seeds; do
    for rate in 2e-4 1e-4 4e-4; do
        for beta in 0.04 0; do
            name=${bonus}_lr${rate}_beta${beta}
            if [[ $rate == 2e-4 && $beta == 0.04 ]]; then name=$bonus; fi
            echo "${name//:/-}_seed$seed --use_ir=$bonus --seed=$seed --learning_rate=$rate --beta=$beta" \
                "--eval_samples=8 --eval_greedy=false --bf16=false --stop_on_collapse=false"
        done
    done
done | side_by_side run_countdown.py results/countdown_grid
