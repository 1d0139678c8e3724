#!/usr/bin/env bash
# Known truth (docs/known_truth.md): every bonus and control on the Countdown of which all is known, 20 seeds. Two
# processes share the seeds; a trial leaves its record in benchmarks/results/known_truth and is not run again, so the same
# command continues after a stop. A line per finished seed says what is left. The report is that of all records there; ten of
# their seeds were added after a look at the report of the first ten, so p is adjusted for two looks.
#   bash sweeps/known_truth.sh [flags of python -m benchmarks.known_truth]
#   make results                               # the cards, from the report
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
results=benchmarks/results/known_truth

processes=()
for _ in $(seq "${SIDE_BY_SIDE:-2}"); do
    "${PYTHON:-.venv/bin/python}" -m benchmarks.known_truth --records $results --output $results --looks 2 "$@" &
    processes+=($!)
done
for process in "${processes[@]}"; do wait "$process"; done
