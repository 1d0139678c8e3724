#!/usr/bin/env bash
# Metric or mechanism, on Countdown with the embedded policy: benchmarks/plans/metric_or_mechanism.md. Nine arms, five
# seeds, 64 samples of each of 512 validation problems before and after.
#   bash sweeps/metric_or_mechanism.sh ["seeds"] ["arms"]
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
seeds=${1:-0 1 2 3 4}
arms=${2:-no exact answer bigram embedding likelihood random maxrl repexp}

for seed in $seeds; do
    for arm in $arms; do
        case $arm in
            no | maxrl | repexp) flags="--use_ir=$arm" ;;
            *) flags="--use_ir=rarity --rarity_partition=$arm" ;;
        esac
        echo "${arm}_seed$seed $flags --seed=$seed --max_steps=150 --eval_samples=64 --eval_greedy=false"
    done
done | side_by_side run_countdown.py results/metric_or_mechanism
