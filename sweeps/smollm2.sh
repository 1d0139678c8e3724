#!/usr/bin/env bash
# Countdown of two or three numbers with a pretrained policy of 135 million parameters (make smollm2), after a supervised
# start that teaches to try and to check: bonuses and controls against plain GRPO, three seeds; 8 samples of 128 validation
# problems. 50 steps of 32 completions of up to 96 tokens: 20 to 45 minutes a run of one core, evaluations among them.
# Plain GRPO and Memory-R+ come first, then one seed of each arm, then the rest.
#   bash sweeps/smollm2.sh ["arms"] ["seeds"]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ shuffle:knn+ sc repexp cfn passk rnd entropy-adv maxrl rarity noise}
seeds=${2:-0 1 2}
bash sweeps/smollm2_base.sh countdown

run() {
    echo "${1//:/-}_seed$2 --use_ir=$1 --seed=$2 --config=configs/smollm2.yaml --stop_on_collapse=false"
}

in_order "no knn+" "$arms" "$seeds" | side_by_side run_countdown.py results/smollm2
