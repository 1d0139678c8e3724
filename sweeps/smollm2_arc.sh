#!/usr/bin/env bash
# ARC-Easy with a pretrained policy of 135 million parameters (make smollm2) after a supervised start that teaches the shape
# of an answer: bonuses and controls against plain GRPO, three seeds; 8 samples of 128 questions that are set aside. 32
# completions of up to 48 tokens a step. 16 minutes a run of one core, more for the start, which is made once.
# Plain GRPO and Memory-R+ come first, then one seed of each arm, then the rest.
#   bash sweeps/smollm2_arc.sh ["arms"] ["seeds"] [ARC: hub name, or folder with challenge_train.jsonl and easy_train.jsonl]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ cfn rnd sc repexp entropy-adv passk maxrl noise shuffle:knn+}
seeds=${2:-0 1 2}
data=${3:-allenai/ai2_arc}
bash sweeps/smollm2_base.sh arc "$data"
flags="--config=configs/smollm2_arc.yaml --data=$data --stop_on_collapse=false"

run() {
    echo "${1//:/-}_seed$2 --use_ir=$1 --seed=$2 $flags"
}

in_order "no knn+" "$arms" "$seeds" | side_by_side run_choice.py results/smollm2_arc
