#!/usr/bin/env bash
# Metric or mechanism, on Countdown with the embedded policy (benchmarks/plans/metric_or_mechanism.md): rarity with six
# partitions of the right answers, and two yardsticks, on problems that have two right approaches or more.
#   bash sweeps/metric_or_mechanism.sh ["arms"] ["seeds"]
#   python -m benchmarks.metric_or_mechanism_countdown      # the report of what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no rarity rarity_answer rarity_bigram rarity_embedding rarity_likelihood rarity_random maxrl repexp}
seeds=${2:-0 1 2 3 4}

run() {
    flags="--use_ir=${1%_*}"
    if [[ $1 == rarity_* ]]; then flags+=" --rarity_partition=${1#rarity_}"; fi # without a name it is the exact one
    echo "$1_seed$2 $flags --seed=$2 --min_approaches=2 --train_problems=400 --eval_split=test --eval_problems=56" \
        "--eval_samples=64 --eval_greedy=false --bf16=false" # the same on every machine
}

in_order "no rarity rarity_random" "$arms" "$seeds" | side_by_side run_countdown.py results/metric_or_mechanism
