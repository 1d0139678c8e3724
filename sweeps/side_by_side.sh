# Sourced by the sweeps of this folder. A sweep prints one line per run, "name flags...", into
#   side_by_side SCRIPT RESULTS
# which runs them two at a time, each with one thread: that uses two cores better than one run of two threads. A finished
# run leaves its record RESULTS/name.json and is skipped from then on; a broken one goes on from its last checkpoint. So the
# same command continues after a stop. Runs that would make the same evaluation before training share it. A line per
# finished run says what is left.
#   SIDE_BY_SIDE=1 bash sweeps/countdown.sh    # runs at a time
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-.venv/bin/python}

# Calls run ARM SEED for all arms and seeds: first the arms that are to have all their seeds soon, then the rest seed by seed.
#   in_order "first arms" "arms" "seeds"
in_order() {
    for seed in $3; do for arm in $1; do if [[ " $2 " == *" $arm "* ]]; then run "$arm" "$seed"; fi; done; done
    for seed in $3; do for arm in $2; do if [[ " $1 " != *" $arm "* ]]; then run "$arm" "$seed"; fi; done; done
}

count_finished() {
    finished=0
    while read -r planned _; do
        if [[ -f $RESULTS/$planned.json ]]; then finished=$((finished + 1)); fi
    done < "$PLAN"
    echo "$finished"
}

run_one() {
    name=$1 folder=$OUTPUTS/$1
    shift
    if [[ -f $RESULTS/$name.json ]]; then exit 0; fi
    if [[ ! -f $folder/eval/after.json ]]; then
        goes_on=()
        if compgen -G "$folder/checkpoint-*" > /dev/null; then goes_on=(--resume auto); fi
        if ! "$PYTHON" "$SCRIPT" "$@" --reuse_before --output_dir "$folder" "${goes_on[@]}" >> "$folder.log" 2>&1; then
            echo "$name: failed, see $folder.log"
            exit 1
        fi
    fi
    "$PYTHON" -m analysis.records "$folder" --out "$RESULTS" > /dev/null
    finished=$(count_finished) total=$(wc -l < "$PLAN")
    left=$((total - finished))
    minutes=$((($(date +%s) - STARTED) * left / (finished - BEFORE) / 60))
    echo "$name: done; $left of $total runs left, about $minutes minutes"
}

side_by_side() {
    export SCRIPT=$1 RESULTS=$2 OUTPUTS=outputs/sweeps/$(basename "$2")
    PLAN=$(mktemp) # of this call: another one may be running other arms of the same sweep
    export PLAN
    trap 'rm -f "$PLAN"' EXIT
    export -f run_one count_finished
    mkdir -p "$OUTPUTS" "$RESULTS"
    cat > "$PLAN"
    BEFORE=$(count_finished) STARTED=$(date +%s)
    export BEFORE STARTED
    xargs -a "$PLAN" -P "${SIDE_BY_SIDE:-2}" -L 1 bash -c 'run_one "$@"' _
}
