SHELL := bash
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
PLATFORM ?= auto
# Whole runs side by side are fine on CPUs; each plans with all of a GPU's memory, so there they take turns.
PROCESSES ?= $(if $(wildcard /proc/driver/nvidia/version),1,2)
# Set in many container images, and then every process compiles all of vLLM again: 25 s of CPU for each start.
unexport PYTHONDONTWRITEBYTECODE
FILES := $(wildcard experiments/*.yaml experiments/*/*.yaml)
EXPERIMENTS := $(filter-out base/% sweeps/% benchmarks/%,$(patsubst experiments/%.yaml,%,$(FILES)))

# Said before anything is installed, since an install takes minutes.
ifneq ($(filter train,$(MAKECMDGOALS)),)
ifeq ($(strip $(EXP)),)
$(error make train needs EXP=name, one of: $(or $(EXPERIMENTS),(no experiments/*.yaml found)))
endif
endif
ifneq ($(filter sweep,$(MAKECMDGOALS)),)
ifeq ($(strip $(SWEEP)),)
$(error make sweep needs SWEEP=name, one of: $(patsubst experiments/sweeps/%.yaml,%,$(wildcard experiments/sweeps/*.yaml)))
endif
endif

.PHONY: help setup plan doctor train sweep test test-faults test-scale test-multinode test-gpu parity lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@echo "experiments: $(EXPERIMENTS)"

setup: ## install into VENV=.venv with PYTHON=python3 for PLATFORM=cpu, gpu or auto; instant when up to date
	@timepro/environment/install.sh "$(VENV)" "$(PYTHON)" "$(PLATFORM)"

plan: setup ## say what an experiment needs of cards, memory and time: make plan EXP=name ARGS="--cards 1 --gb 80"
	@exec "$(VENV)/bin/timepro" plan $(EXP) $(ARGS)

doctor: setup ## say whether a run could start here, or on several nodes: make doctor EXP=name
	@exec "$(VENV)/bin/timepro" doctor $(EXP) $(ARGS)

train: setup ## run an experiment: make train EXP=name ARGS="key=value ..."
	@exec "$(VENV)/bin/timepro" train $(EXP) $(ARGS)

sweep: setup ## run a sweep of experiments/sweeps/: make sweep SWEEP=name ARGS="--slots 2 key=value ..."
	@exec "$(VENV)/bin/timepro" sweep $(SWEEP)$(if $(SCALE),_$(SCALE)) $(ARGS)

test: lint ## install, check style and types, run the tests in PROCESSES=2: make test ARGS="-m 'not e2e'"
	@exec "$(VENV)/bin/python" -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS)

test-faults: setup ## kill and stop the processes of a run in every phase; about half an hour
	@exec "$(VENV)/bin/python" -m pytest -m faults tests/faults -s $(ARGS)

test-scale: setup ## run the paper's experiments in miniature on checkpoints of the published shape
	@exec "$(VENV)/bin/python" -m pytest -m scale tests/scale $(ARGS)

test-multinode: setup ## run the main job over two network namespaces, with faults; needs root and the ip command
	@exec "$(VENV)/bin/python" -m pytest -m multinode tests/multinode $(ARGS)

test-gpu: setup ## everything that needs a card, at most ten minutes: make test-gpu PARTS=learner,attention
	@exec "$(VENV)/bin/python" tests/gpu/run.py $(if $(PARTS),--parts $(PARTS)) $(ARGS)

parity: setup ## compare vLLM with transformers, cell by cell; kept, so that it goes on where it was left: make parity ARGS="--minutes 7"
	@exec "$(VENV)/bin/python" experiments/parity/matrix.py $(ARGS)

lint: setup ## check style and types
	@"$(VENV)/bin/ruff" check .
	@"$(VENV)/bin/ruff" format --check --quiet .
	@"$(VENV)/bin/python" -m mypy

clean: ## remove caches and build leftovers; keeps VENV and runs/
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find $(wildcard timepro rewards rollout trainer tests) -name __pycache__ -type d -prune -exec rm -rf {} +
