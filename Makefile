# Every target sets up what it needs: a virtual environment in .venv and pinned packages, each once.

PYTHON  ?= python3
PROFILE ?= quick

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Must be set before torch loads: OpenMP threads that spin while they wait starve every other process.
export OMP_WAIT_POLICY := PASSIVE
# The isolated environments that pip builds packages in are pinned too (the second name is for pip >= 25.3).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help figures gallery test lint llm verify mutants bench results paper clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=/path/to/python chooses the interpreter (3.11 or newer) that .venv is made from."

figures: $(INSTALLED)-core ## Run the light experiments and draw every figure into figures/out/
	@$(BIN)/hiso-bench figures

gallery: figures ## Copy the drawn figures to the committed gallery, and write its page
	@cp figures/out/*.png figures/gallery/
	@$(BIN)/python -m figures.page

test: lint ## Check style and types, then run the tests
	@echo "test      pytest, two processes of one thread each"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(INSTALLED)-dev ## Check style (ruff) and types (pyright)
	@echo "lint      ruff"
	@$(BIN)/ruff check --quiet .
	@echo "lint      pyright"
	@$(BIN)/pyright

llm: $(INSTALLED)-llm ## Install what the language track needs beside the core

verify: $(INSTALLED)-core ## Decide every claim: results/claims.json and a table; fails if a verdict differs from its pin
	@$(BIN)/hiso-bench verify

mutants: $(INSTALLED)-dev ## Plant bugs, one at a time: every one must be caught, and sound code must raise no alarm
	@$(BIN)/python -m tests.mutants.run

bench: $(INSTALLED)-llm ## Measure the cost of a round, of the theory and of fine-tuning; PEER=path adds a checkout of the official code, CASE=a only some
	@$(BIN)/python -m benchmarks.round $(if $(PEER),--peer '$(PEER)') $(if $(CASE),--case '$(CASE)')
	@$(if $(CASE),,$(BIN)/python -m benchmarks.theory)
	@$(if $(CASE),,$(BIN)/python -m benchmarks.llm $(if $(PEER),--peer '$(PEER)'))

results: $(INSTALLED)-core ## Recompute recorded results; PROFILE=quick|standard|paper, DRY_RUN=1 prints the plan
	@$(BIN)/hiso-bench results --profile $(PROFILE) $(if $(filter 1,$(DRY_RUN)),--dry-run)

paper: $(INSTALLED)-paper ## Set the texts of paper/ as PDF, every number pulled from results/
	@$(BIN)/hiso-bench figures stage
	@$(BIN)/python -m paper.build

clean: ## Remove drawn figures, caches and build leftovers; keeps .venv, data and results
	@rm -rf figures/out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps. Each extra is installed together with the core, so its stamp stands for the core as well.
$(INSTALLED)-dev: EXTRA := [dev]
$(INSTALLED)-llm: EXTRA := [llm]
$(INSTALLED)-paper: EXTRA := [paper]
$(INSTALLED)-core $(INSTALLED)-dev $(INSTALLED)-llm $(INSTALLED)-paper: pyproject.toml constraints.txt $(BIN)/python
	@echo "install   hiso_bench$(EXTRA), versions from constraints.txt"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.$(EXTRA)'
	@touch $(INSTALLED)-core $@

$(BIN)/python:
	@command -v '$(PYTHON)' >/dev/null || \
	  { echo "'$(PYTHON)' was not found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python"; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "'$(PYTHON)' is too old: hiso_bench needs Python 3.11 or newer; name one with PYTHON=/path/to/python"; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' has no venv module: install it (Debian and Ubuntu: the package python3-venv)"; exit 1; }
	@echo "venv      $(VENV)"
	@'$(PYTHON)' -m venv --clear $(VENV)
