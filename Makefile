# Needs only make and Python 3.11 to 3.13. What runs Python makes .venv first, and again when
# pyproject.toml or constraints.txt change. On Windows, install with pip as the README says.

ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help train test test-project test-all lint format board clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo 'ARGS="..." is passed on to train, test, test-project, test-all and board: make train ARGS="model=deep optimizer=nadam"'
	@echo 'PYTHON=... names the Python that .venv is made with; it counts when .venv is made, so after make clean'

train: $(STAMP) ## train a network, or with ARGS="-m ..." a sweep
	@$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## run the tests but for the slow ones, two at a time
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-project: $(STAMP) ## train every option of your own for two steps
	$(BIN)/python -m pytest -n 0 tests/project $(ARGS)

test-all: $(STAMP) ## run the slow tests too
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

lint: $(STAMP) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(STAMP) ## repair style where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

board: $(STAMP) ## show logs/ in TensorBoard
	$(BIN)/tensorboard --logdir logs $(ARGS)

clean: ## remove .venv, caches and build outputs; logs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build dist src/*.egg-info
	find src scripts tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp is written last and holds this folder's path: an environment that was interrupted
# in the making, moved with its folder or left without its Python is made again; one that is only
# out of date is updated.
MADE_FOR := $(shell test -x $(BIN)/python && cat $(STAMP) 2>/dev/null)
ifneq "$(MADE_FOR)" "$(CURDIR)"
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if [ "$(MADE_FOR)" != "$(CURDIR)" ]; then \
		python=; \
		for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
			if $$candidate -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
			then python=$$candidate; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "error: no Python 3.11 to 3.13 with venv among: $(or $(PYTHON),python3 python3.13 python3.12 python3.11);" \
				"install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
			exit 1; \
		fi; \
		$$python -m venv --clear .venv; \
	fi; \
	rm -f $(STAMP); \
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]' -c constraints.txt; \
	printf '%s\n' "$(CURDIR)" > $(STAMP)
