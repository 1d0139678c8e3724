#!/usr/bin/env bash
# Metric or mechanism, on Countdown with the embedded policy: benchmarks/plans/metric_or_mechanism.md. Nine arms, five
# seeds, 64 samples of each of 512 validation problems before and after. Finished runs are skipped and broken ones go on,
# so the same command continues after a stop. jobs: how many runs at a time, each of one thread on a CPU.
#   bash benchmarks/metric_or_mechanism.sh [seeds] [arms] [jobs]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-"0 1 2 3 4"}
arms=${2:-"no exact answer bigram embedding likelihood random maxrl repexp"}
jobs=${3:-1}
export OMP_NUM_THREADS=1 ROOT=outputs/metric_or_mechanism_countdown

run_one() {
    arm=$1 seed=$2 folder=$ROOT/$1_seed$2
    case $arm in
        no | maxrl | repexp) flags="--use_ir=$arm" ;;
        *) flags="--use_ir=rarity --rarity_partition=$arm" ;;
    esac
    flags+=" --seed $seed --max_steps 150 --eval_samples 64 --eval_greedy false --output_dir $folder"
    if [[ -f $folder/eval/after.json ]]; then return; fi
    if compgen -G "$folder/checkpoint-*" > /dev/null; then flags+=" --resume auto"; fi
    mkdir -p "$ROOT"
    .venv/bin/python run_countdown.py $flags > "$ROOT/$1_seed$2.log" 2>&1 || { echo "$arm seed $seed failed"; return 1; }
    echo "$arm seed $seed: done"
}
export -f run_one

for seed in $seeds; do
    for arm in $arms; do echo "$arm $seed"; done
done | xargs -P "$jobs" -L 1 bash -c 'run_one "$@"' _
.venv/bin/python -m analysis.compare_runs "$ROOT"/*/ --out benchmarks/results/metric_or_mechanism_countdown.md
