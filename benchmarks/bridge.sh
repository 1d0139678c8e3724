#!/usr/bin/env bash
# BRIDGE with an embedded policy: data, supervised start, influence, GRPO and evaluation for plain and injected traces, three
# seeds each, with table and figure in outputs/bridge/<task>, by default Countdown. Flags: python -m benchmarks.bridge --help
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/python -m benchmarks.bridge "$@"
