#!/usr/bin/env bash
# The edge of competence on Countdown with the embedded policy: benchmarks/plans/edge_of_competence.md. Bonuses and plain
# GRPO with groups of 4, 16 and 32, 192 completions a step; those of groups of 8 are runs of sweeps/countdown.sh.
#   bash sweeps/edge_of_competence.sh ["arms"] ["seeds"] ["group sizes"]
#   python -m benchmarks.edge_of_competence --report_only true     # the figure from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ repexp passk rnd}
seeds=${2:-0 1 2 3 4}
groups=${3:-4 16 32}

for seed in $seeds; do
    for group in $groups; do
        for arm in $arms; do
            echo "${arm//:/-}_G${group}_seed$seed --use_ir=$arm --seed=$seed --num_generations=$group" \
                "--bs=$((192 / group)) --eval_split=test --eval_problems=256 --eval_samples=64 --eval_greedy=false" \
                "--bf16=false" # evaluated as the runs of sweeps/countdown.sh
        done
    done
done | side_by_side run_countdown.py results/edge_of_competence
