#!/usr/bin/env bash
# Countdown with the embedded policy: plain GRPO, Memory-R+ at both levels, MERCI and i-MENTOR, five seeds, compared.
# Runs of one thread, two at a time, use two cores better than one run of two threads. One seed of all arms takes one to
# two hours on two cores. Finished runs are skipped and broken ones go on, so the same command continues after a stop.
#   bash benchmarks/countdown.sh [seeds] [arms]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-"0 1 2 3 4"}
arms=${2:-"no knn+ knn+_reward cfn rnd"}
export OMP_NUM_THREADS=1 ROOT=outputs/countdown_arms

run_one() {
    arm=$1 seed=$2 folder=$ROOT/$1_seed$2
    flags="--use_ir=${arm%_reward} --seed $seed --eval_samples 8 --eval_greedy false --output_dir $folder"
    if [[ $arm == *_reward ]]; then flags+=" --ir_level reward"; fi
    if [[ -f $folder/eval/after.json ]]; then return; fi
    if compgen -G "$folder/checkpoint-*" > /dev/null; then flags+=" --resume auto"; fi
    mkdir -p "$ROOT"
    .venv/bin/python run_countdown.py $flags > "$ROOT/$1_seed$2.log" 2>&1 || { echo "$arm seed $seed failed"; return 1; }
    echo "$arm seed $seed: done"
}
export -f run_one

for seed in $seeds; do
    for arm in $arms; do echo "$arm $seed"; done
done | xargs -P 2 -L 1 bash -c 'run_one "$@"' _
.venv/bin/python -m analysis.compare_runs "$ROOT"/*/ --out benchmarks/results/countdown.md
