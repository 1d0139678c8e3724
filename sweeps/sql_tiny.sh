#!/usr/bin/env bash
# sql_tiny, generated questions on small databases: bonuses and controls against plain GRPO, five seeds; 8 samples of 256
# held-out questions each, of templates that training does not have. The warm start is made once, then each run begins
# with it. Plain GRPO comes first, then one seed of each arm, then the rest, so that the table is useful at any time.
# A run that collapses goes on, so that it counts. Left out: rarity, since right answers to one question have one result, and knn-sent, since a query has no sentences.
#   bash sweeps/sql_tiny.sh ["arms"] ["seeds"]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
bash sweeps/sql_tiny_base.sh
arms=${1:-no outcome cfn rnd knn+ knn repexp entropy ltree ppl sc certain majority entropy-adv passk maxrl nsr risk focal smooth unlikely noise shuffle:outcome}
seeds=${2:-0 1 2 3 4}

run() {
    flags="--use_ir=$1"
    if [[ $1 == *outcome ]]; then flags+=" --outcome_mode=batch"; fi # counts over training pay nothing in one epoch
    echo "${1//:/-}_seed$2 $flags --seed=$2 --config=configs/sql_world.yaml --encoder=policy --stop_on_collapse=false" \
        "--model_name=outputs/sql_tiny_base/warm_start/final"
}

in_order "no" "$arms" "$seeds" | side_by_side run_sql.py results/sql_tiny
