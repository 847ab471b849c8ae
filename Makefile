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
TARGET ?= cpu
DIR ?= tests/golden
BASE ?=

# Each of these is one value: it reaches the shell as one word, whatever signs it holds. ARGS holds words for the shell.
# A dollar sign would be make's before it could be quoted, and a line break ends a line of a recipe here.
VALUES := RECIPE GPUS RUNS_DIR TARGET DIR BASE
define line_break


endef
refuse = $(if $(findstring $$,$(value $(1)))$(findstring $(line_break),$(value $(1))),$(error $(1): a value without dollar signs and line breaks, please; densekit itself takes any))
$(foreach name,$(VALUES),$(call refuse,$(name)))
quoted = '$(subst ','\'',$($(1)))'

export TOKENIZERS_PARALLELISM := false

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
HASHED := $(PIP) --no-deps --require-hashes
EDITABLE := $(PIP) --no-deps --no-build-isolation -e .

# A stamp is written last, so a failed or killed installation is never taken for a complete one. Its name holds a
# checksum of what is asked for and of where it stands: an edit or a moved folder installs again, nothing else does.
checksum = $(firstword $(shell { cat $(1) pyproject.toml setup.py requirements/*.in; echo '$(CURDIR)'; } | cksum))
FULL := .venv/.stamp-$(call checksum,requirements/torch.txt requirements/train.txt requirements/dev.txt requirements/xformers.txt)
DRIVER := .venv/.stamp-driver-$(call checksum,requirements/driver.txt)
LMMS_EVAL := .venv/.stamp-lmms-eval-$(call checksum,requirements/lmms-eval.txt requirements/lmms-eval-package.txt)
TRANSFORMERS_4 := .venv/.stamp-transformers-4-$(call checksum,requirements/transformers-4.txt)
BROWSER := .venv/.stamp-browser-$(call checksum,requirements/browser.txt)
RO_CRATE := .venv/.stamp-ro-crate-$(call checksum,requirements/ro-crate.txt)
EASY_VQA := .venv/.stamp-easy-vqa-$(call checksum,requirements/easy-vqa.txt)
DOCS := .venv/.stamp-docs-$(call checksum,requirements/docs.txt)
DEMO := .venv/.stamp-demo-$(call checksum,requirements/demo.txt)

# Tests run in parallel by whole files, the long ones first: what a file makes once is made once (tests/support/kinds.py).
JOBS ?= logical
PYTEST := $(BIN)/python -m pytest -q
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder

SHELL_SCRIPTS = $(shell find . \( -name .venv -o -name .git -o -path ./runs \) -prune -o -type f \( -name '*.sh' -o -path './.ci/*' \) -print)
RECIPES = $(filter-out paper revisions,$(sort $(basename $(notdir $(wildcard recipes/*.yaml)))))

.PHONY: help setup setup-driver lmms-eval browser transformers-4 ro-crate reproduce demo easy-vqa claim parity unchanged bench kernels gpu test test-system test-all coverage docs release golden-losses chaos ends fuzz mutants lint format lock lock-check image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(FULL) ## install everything, torch included, into .venv (again only when a pin changed)

lmms-eval: $(LMMS_EVAL) ## install lmms-eval beside the trainer's packages, for `densekit cross-check`

browser: $(BROWSER) ## install what opens reports in the chromium of this system, for a test

transformers-4: $(TRANSFORMERS_4) ## install an older transformers beside the trainer's packages, for a test of exports

ro-crate: $(RO_CRATE) ## install the validator of RO-Crates in a folder of its own, for a test of dossiers

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
# DeepSpeed comes as source: no kernel is compiled at installation, and none of its own is needed here.
$(FULL): export DS_BUILD_OPS := 0
$(FULL): | .venv/bin/pip
	@rm -f .venv/.stamp-*
	@echo 'Installing torch, transformers and the tools into .venv (1.4 GB with a CPU build of torch): a minute or two'
	@$(PIP) --no-deps -r requirements/torch.txt
	@$(HASHED) -r requirements/driver.txt
	@$(HASHED) --no-build-isolation -r requirements/train.txt
	@$(HASHED) -r requirements/dev.txt
	@$(PIP) -r requirements/torch.txt
	@if [ "$$(uname -sm)" = 'Linux x86_64' ]; then $(HASHED) --upgrade --target .venv/xformers -r requirements/xformers.txt; fi
	@$(EDITABLE)
	@touch $@

$(DRIVER): | .venv/bin/pip
	@rm -f .venv/.stamp-*
	@echo 'Installing the command line into .venv: a few seconds'
	@$(HASHED) -r requirements/driver.txt
	@$(EDITABLE)
	@touch $@

# lmms-eval lies in a folder of its own: what it needs never meets the trainer's packages, which it reads beside it.
$(LMMS_EVAL): $(FULL)
	@rm -rf .venv/.stamp-lmms-eval-* .venv/lmms_eval
	@echo 'Installing lmms-eval into .venv/lmms_eval (0.4 GB): a minute or two'
	@$(HASHED) --target .venv/lmms_eval -r requirements/lmms-eval.txt -r requirements/lmms-eval-package.txt
	@touch $@

$(TRANSFORMERS_4): $(FULL)
	@rm -rf .venv/.stamp-transformers-4-* .venv/transformers_4
	@echo 'Installing transformers 4 into .venv/transformers_4 (0.1 GB): a minute'
	@$(HASHED) --target .venv/transformers_4 -r requirements/transformers-4.txt
	@touch $@

$(RO_CRATE): $(FULL)
	@rm -rf .venv/.stamp-ro-crate-* .venv/ro_crate
	@echo 'Installing the validator of RO-Crates into .venv/ro_crate (60 MB): some seconds'
	@$(HASHED) --target .venv/ro_crate -r requirements/ro-crate.txt
	@touch $@

$(DEMO): $(FULL)
	@rm -f .venv/.stamp-demo-*
	@echo 'Installing a small language model and photographs into .venv (120 MB): a minute'
	@$(HASHED) -r requirements/demo.txt
	@touch $@

$(BROWSER): $(FULL)
	@rm -f .venv/.stamp-browser-*
	@echo 'Installing the driver of a browser into .venv (170 MB): some seconds'
	@$(HASHED) -r requirements/browser.txt
	@touch $@

$(EASY_VQA): $(FULL)
	@rm -f .venv/.stamp-easy-vqa-*
	@echo 'Installing the pictures and questions of easy-vqa into .venv (20 MB)'
	@$(HASHED) -r requirements/easy-vqa.txt
	@touch $@

$(DOCS): $(FULL)
	@rm -f .venv/.stamp-docs-*
	@echo 'Installing what builds the documentation into .venv (60 MB): some seconds'
	@$(HASHED) -r requirements/docs.txt
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
	@$(BIN)/densekit run $(if $(GPUS),--gpus $(call quoted,GPUS)) $(if $(RUNS_DIR),--runs-dir $(call quoted,RUNS_DIR)) \
		$(ARGS) -- $(call quoted,RECIPE)
endif

demo: $(DEMO) ## run the example with a real small language model (SmolLM2-135M), on CPU
	@$(BIN)/python examples/smollm2_demo.py $(ARGS)

CLAIM = PYTHONPATH="$(CURDIR)/benchmarks$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m claim
easy-vqa: $(EASY_VQA) ## make the data set easy-vqa, its benchmark and tiny models for it, from the package (MIT)
	@$(CLAIM) --prepare

claim: $(EASY_VQA) ## is DCI better than one layer's features on easy-vqa? Train, ask and judge 2 x 3 tiny runs on a CPU (also ARGS=)
	@$(CLAIM) $(ARGS)

parity: $(FULL) ## compare densekit with the numbers recorded from the official code (DIR=tests/golden)
	@$(BIN)/densekit parity $(ARGS) -- $(call quoted,DIR)

unchanged: $(if $(BASE),$(FULL)) ## show that the working tree computes what the commit BASE=<commit> does, bit by bit
ifeq ($(BASE),)
	@echo 'make unchanged needs the commit to compare with: make unchanged BASE=main' >&2
	@exit 2
else
	@$(BIN)/python -m tools.unchanged $(call quoted,BASE) $(ARGS)
endif

bench: $(FULL) ## time the training step
	@$(BIN)/python benchmarks/train_step.py $(ARGS)

# On a GPU machine: in an environment that has its CUDA build of torch and the kernels' packages.
kernels: $(FULL) ## test and time every attention kernel that can run here (on a GPU: all that are installed)
	@$(PYTEST) -m 'unit or ranks or gpu' tests/model/test_attention_numbers.py tests/model/test_kernels.py
	@$(BIN)/python benchmarks/attention.py $(ARGS)

# In the environment of PYTHON, whatever it holds: a GPU host often has no network. Pure-Python packages that it lacks can
# be brought along in a folder that PYTHONPATH names.
gpu: ## measure what this GPU does, with PYTHON=<its interpreter> and nothing installed (on a CPU: at tiny size)
	@PYTHONPATH="$(CURDIR):$(CURDIR)/benchmarks$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m gpu $(ARGS)

test: $(FULL) ## run the tests of the kinds unit and ranks that are not slow
	@$(PYTEST) $(PARALLEL) $(ARGS)

test-system: $(FULL) ## run the tests that need a container engine or Slurm (private ones are started) and are not slow
	@$(PYTEST) -m 'system and not slow' $(ARGS)

test-all: $(FULL) ## run every test of every kind
	@$(PYTEST) $(PARALLEL) -m 'unit or ranks or gpu' $(ARGS)
	@$(PYTEST) -m system $(ARGS)

coverage: $(FULL) ## measure which lines and branches the tests of `make test` reach (build/coverage)
	@$(PYTEST) $(PARALLEL) --cov --cov-report=html:build/coverage --cov-report=term:skip-covered $(ARGS)

docs: $(DOCS) ## build the documentation's site into build/site; a broken link or reference is an error
	@$(BIN)/mkdocs build --quiet --strict
	@echo 'docs: build/site/index.html'

release: $(FULL) ## build wheel, sdist, their packages (CycloneDX) and SHA256SUMS into dist, as the release workflow does
	@$(BIN)/python -m tools.release

chaos: $(FULL) ## kill training 200 times and evaluations 100 times at random moments; all must end the same (about 15 minutes)
	@$(PYTEST) -m ranks tests/train/test_chaos.py tests/evaluate/test_chaos.py --kills 200 --timeout 3600 $(ARGS)

fuzz: $(FULL) ## try 20,000 damaged recipes, overrides, annotation files and model folders (make test tries 500)
	@DENSEKIT_FUZZ=40 $(PYTEST) $(PARALLEL) tests/fuzz $(ARGS)

mutants: $(FULL) ## change the batches, texts, loss and scorers one operator at a time; the tests must notice (hours; ARGS=files)
	@OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m tools.mutants $(ARGS)

ends: $(FULL) ## end 200 runs of two processes, stopped and complete; each must end cleanly (about an hour)
	@$(BIN)/python benchmarks/process_ends.py $(ARGS)

golden-losses: $(FULL) ## record the loss curves of the tiny recipes anew (tests/golden_losses)
	@$(BIN)/python -m tests.support.golden_losses

lint: $(FULL) ## check style, types, spelling, licences, YAML, shell scripts, Dockerfile, compose.yaml, workflows and CITATION.cff
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/codespell
	@$(BIN)/reuse lint --lines
	@$(BIN)/yamllint --strict .
	@$(BIN)/shellcheck $(SHELL_SCRIPTS)
	@$(BIN)/hadolint docker/Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	@echo 'lint: ruff, mypy, codespell, reuse, yamllint, shellcheck, hadolint and the schemas found nothing'

format: $(FULL) ## rewrite the Python files in the project's style
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

lock: $(FULL) ## pin every requirements file, hashes included (requirements/, docker/requirements/)
	@$(BIN)/python tools/lock.py

lock-check: $(FULL) ## check that the pins follow the .in files (reads metadata from the package index)
	@$(BIN)/python tools/lock.py --check

image: setup-driver ## build the container image TARGET=a100|v100|cpu|lmms|video|tensorboard (more options of `docker build` in ARGS=)
	@$(BIN)/densekit containers build $(call quoted,TARGET) -- $(ARGS)

clean: ## remove caches and build leftovers; .venv, .cache and runs stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build dist densekit.egg-info
	@find . \( -name .git -o -name .venv -o -path ./runs \) -prune -o -type d -name __pycache__ -exec rm -rf {} +
