#!/usr/bin/env bash
# Speed and memory on the GPU at hand, in four tables: a step against plain TRL, tokens decoded per second against what
# the memory's bandwidth allows, the peak of a step against its estimate, and what each bonus costs. A table that cannot be
# made does not stop the others.
#   bash benchmarks/gpu.sh        # writes benchmarks/results/gpu_<card>_<table>.md and .json; an hour or more
#   bash benchmarks/gpu.sh short  # the same files from fewer and shorter steps and fewer bonuses; ten minutes or more
#   bash benchmarks/gpu.sh toy    # the same commands at toy size on any machine; writes to outputs/gpu_toy/
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
mode=${1:-full}
if [[ $mode != toy ]]; then
    card=$($python -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "-").lower())') || {
        echo "error: torch sees no CUDA device here; bash benchmarks/gpu.sh toy tries the commands without one." >&2
        exit 2
    }
    shape=qwen2.5-0.5b out=benchmarks/results/gpu_$card
fi
case $mode in
    full) shapes=qwen2.5-0.5b,qwen2.5-1.5b
        step="--steps 8 --rounds 2 --prompts 8 --length 256"
        decode="--prompts 16 --generations 16 --length 256 --steps 4"
        peak="--prompts 8 --length 256 --micro_batch 8"
        cost="--bonuses all --prompts 8 --length 256 --steps 6 --warm_steps 2" ;;
    short) shapes=qwen2.5-0.5b
        step="--steps 4 --rounds 1 --prompts 8 --length 128"
        decode="--prompts 8 --generations 8 --length 128 --steps 3 --sampler hf,continuous_batching"
        peak="--prompts 4 --length 128 --micro_batch 8"
        cost="--bonuses knn+,cfn --encoder policy --prompts 8 --length 64 --steps 4 --warm_steps 2" ;;
    toy) shape=toy shapes=toy out=outputs/gpu_toy/gpu_toy
        step="--steps 3 --rounds 1 --prompts 1 --length 8"
        decode="--prompts 1 --generations 2 --length 8 --steps 2 --copy_megabytes 16 --sampler hf"
        peak="--prompts 1 --length 8 --micro_batch 8"
        cost="--bonuses sc,cfn --prompts 1 --length 8 --steps 2 --warm_steps 1" ;;
    *) echo "error: $mode: use short, toy or nothing" >&2 && exit 2 ;;
esac
mkdir -p "$(dirname "$out")"
policy=$(mktemp -d)
trap 'rm -rf "$policy"' EXIT
failed=0
$python -m benchmarks.shapes $shape "$policy"
$python -m benchmarks.step_time --model_name "$policy" $step --output "${out}_step_time" || failed=1
for one in ${shapes//,/ }; do
    $python -m benchmarks.generation --shape $one $decode --output "${out}_generation" || failed=1
done
$python -m benchmarks.peak --shapes $shapes $peak --output "${out}_peak" || failed=1
$python -m benchmarks.bonus_overhead --policy $shape $cost --output "${out}_bonus_overhead" || failed=1
exit $failed
