#!/usr/bin/env bash
# The table in the README: plain GRPO, Memory-R and Memory-R+ on Countdown with the embedded policy, three seeds each.
# Jobs of one thread, two at a time, use two cores better than one job of two threads. About two hours on two cores.
#   bash benchmarks/countdown.sh [seeds] [bonuses]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-"0 1 2"}
bonuses=${2:-"no knn knn+"}
export OMP_NUM_THREADS=1
for seed in $seeds; do
    for bonus in $bonuses; do
        printf '%s\n' "--use_ir=$bonus --seed $seed"
    done
    if [[ $seed == 0 ]]; then printf '%s\n' "--use_ir=knn+ --memory_legacy --seed $seed"; fi
done | xargs -P 2 -I FLAGS sh -c '.venv/bin/python run_countdown.py FLAGS'
.venv/bin/python -m analysis.summary outputs/countdown/*
