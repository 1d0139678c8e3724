#!/usr/bin/env bash
# Metric or mechanism, on Countdown with the embedded policy (benchmarks/plans/metric_or_mechanism.md): rarity with six
# partitions of the right answers, and two yardsticks. Four of the nine arms are of sweeps/countdown.sh: what is missing there
# is run there, and the records are copied from there; the other five, of ten minutes a run, are run here.
#   bash sweeps/metric_or_mechanism.sh ["seeds"]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-0 1 2 3 4}
shared="no rarity maxrl repexp" # rarity has the exact partition
partitions="rarity_answer rarity_bigram rarity_embedding rarity_likelihood rarity_random"
results=results/metric_or_mechanism

bash sweeps/countdown.sh "$shared" "$seeds"
mkdir -p "$results"
for seed in $seeds; do for arm in $shared; do cp "results/countdown/${arm}_seed$seed.json" "$results/"; done; done
bash sweeps/countdown.sh "$partitions" "$seeds" "$results"
