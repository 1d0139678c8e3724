#!/usr/bin/env bash
# What `make demo` trains, three seeds of it: the records behind the table of the README. Ten to twenty minutes a run of one core.
#   bash sweeps/demo.sh ["seeds"]
#   make results                               # the table from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
for seed in ${1:-0 1 2}; do
    echo "knn+_seed$seed --config=configs/demo.yaml --seed=$seed"
done | side_by_side run_countdown.py results/demo
