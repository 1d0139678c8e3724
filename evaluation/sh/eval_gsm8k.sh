#!/usr/bin/env bash
# GSM8K under the loose tier, greedy, with a prompt type of Qwen's harness:
#   cd evaluation && bash sh/eval_gsm8k.sh qwen25-math-cot path/to/model/ [more flags of run_eval.py]
set -euo pipefail
if (($# < 2)); then
    echo "usage: $0 PROMPT_TYPE MODEL [flags of run_eval.py]" >&2
    exit 2
fi
prompt_type=$1 model=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python}
if [[ -z ${PYTHON:-} && -x $root/.venv/bin/python ]]; then python=$root/.venv/bin/python; fi
exec "$python" "$root/run_eval.py" --task=gsm8k --prompt_type="$prompt_type" --model_name="$model" \
    --temperature=0 --max_new_tokens=2048 --tier=loose "$@"
