#!/usr/bin/env bash
# What plain GRPO on Countdown is tuned over, before anything is compared with it, on validation problems and on seeds that
# sweeps/countdown.sh does not have (benchmarks/plans/countdown.md): learning rate and KL penalty, then temperature and entropy
# bonus, one at a time, at the cell that configs/countdown_tiny.yaml has. The run called `no` has 2e-4 and 0.04. Seven minutes
# a run of one free core; 8 samples of 512 problems.
#   bash sweeps/countdown_grid.sh ["bonus"] ["seeds"] ["variants"]
#   python -m analysis.summary outputs/sweeps/countdown_grid/*_seed*/
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
bonus=${1:-no}
seeds=${2:-100 101}
variants=${3-temperature=0.8 temperature=1.2 entropy_coef=0.003 entropy_coef=0.01}

run() {
    echo "${1//:/-}_seed$2 --use_ir=$bonus --seed=$2 ${*:3}" \
        "--eval_samples=8 --eval_greedy=false --bf16=false --stop_on_collapse=false"
}

{
    for seed in $seeds; do
        for rate in 2e-4 1e-4 4e-4; do
            for beta in 0.04 0; do
                name=${bonus}_lr${rate}_beta${beta}
                if [[ $rate == 2e-4 && $beta == 0.04 ]]; then name=$bonus; fi
                run "$name" "$seed" "--learning_rate=$rate" "--beta=$beta"
            done
        done
    done
    for seed in $seeds; do
        for variant in $variants; do run "${bonus}_${variant/=/}" "$seed" "--$variant"; done
    done
} | side_by_side run_countdown.py results/countdown_grid
