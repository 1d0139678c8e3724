#!/usr/bin/env bash
# GSM8K with a pretrained policy of 135 million parameters (make smollm2): bonuses and controls against plain GRPO, three
# seeds; 8 samples of 128 problems that are set aside. 32 completions of up to 100 tokens a step; hours a run on a CPU.
# Plain GRPO and Memory-R+ come first, then one seed of each arm, then the rest.
#   bash sweeps/smollm2.sh ["arms"] ["seeds"] [training data: hub name or file]
#   make results                               # tables, pictures and pages from what is there
cd "$(dirname "$0")/.."
source sweeps/side_by_side.sh
arms=${1:-no knn+ cfn rnd sc repexp entropy-adv passk maxrl noise shuffle:knn+}
seeds=${2:-0 1 2}
data=${3:-openai/gsm8k}
first="no knn+"
flags="--model_name=smollm2 --data=$data --bs=4 --gc=1 --num_generations=8 --L=100 --max_steps=100 --save_steps=25"
flags+=" --encoder=policy --do_eval=true --eval_problems=128 --eval_samples=8 --eval_greedy=false --stop_on_collapse=false"

run() {
    echo "${1//:/-}_seed$2 --use_ir=$1 --seed=$2 $flags"
}

{
    for seed in $seeds; do for arm in $first; do if [[ " $arms " == *" $arm "* ]]; then run "$arm" "$seed"; fi; done; done
    for seed in $seeds; do for arm in $arms; do if [[ " $first " != *" $arm "* ]]; then run "$arm" "$seed"; fi; done; done
} | side_by_side run_gsm8k.py results/smollm2
