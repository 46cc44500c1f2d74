# `make demo` and `make test` are the two commands of the README; `make help` lists the rest.
# Each sets up what it needs, in $(VENV), with nothing on the machine but make, git and Python.

VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
COMPILED ?=
N ?= 1
ARGS ?=

BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.SUFFIXES:

# --- set-up -------------------------------------------------------------------------------------
# uv where it is on PATH, for its speed, else pip. A stamp stands for a finished step, so that one
# that was interrupted runs again, and a later `make` starts at once.

define install
	@echo "==> installing eventbus[$(1)] with the versions of constraints.txt (once; up to a minute)"
	@if command -v uv >/dev/null; then \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(1)]'; \
	else \
		$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]'; \
	fi
	@touch $(VENV)/.demo $@
endef

$(VENV)/.made:
	@for python in $(PYTHON) python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "eventbus needs Python 3.11 or newer; install it, or say where it is: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "==> making $(VENV) with $$($$found --version)"; \
	rm -rf $(VENV); \
	if command -v uv >/dev/null; then uv venv --quiet --seed --python $$found $(VENV); \
	else $$found -m venv $(VENV) || { echo "on Debian, apt install python3-venv brings what is missing" >&2; rm -rf $(VENV); exit 1; }; fi
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.made
	$(call install,demo)

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.made
	$(call install,dev)

$(VENV)/.bench: pyproject.toml constraints.txt $(VENV)/.made
	$(call install,bench)

$(VENV)/.compile: pyproject.toml constraints.txt $(VENV)/.made
	$(call install,compile)

# The package as a wheel has it where HATCH_BUILD_HOOKS_ENABLE=1 built it (hatch_build.py).
build/compiled/.made: $(shell find eventbus -name '*.py') hatch_build.py $(VENV)/.compile
	@command -v $(CC) >/dev/null || { echo "compiling needs a C compiler and Python's headers; without: make COMPILED=0 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "==> compiling eventbus (a minute)"
	@rm -rf build/compiled
	@HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip install -qq --disable-pip-version-check \
		--no-deps --no-build-isolation --target build/compiled .
	@touch $@

# What is measured is compiled, unless with COMPILED=0; what is tested isn't, unless with COMPILED=1.
MEASURED := $(if $(filter 0,$(COMPILED)),,build/compiled/.made)
TESTED := $(if $(filter 1,$(COMPILED)),build/compiled/.made)
with = $(if $(1),PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/compiled:$(CURDIR) )$(BIN)/python

.PHONY: help setup demo test check fmt fmt-check lint types layers coverage bench bench-smoke \
	bench-steady bench-parking bench-schedules bench-outbox faults faults-naive soak constraints clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." is handed on, as in: make test ARGS="-k retry -x"'
	@echo '  COMPILED=1 tests the compiled package, COMPILED=0 measures the Python files (hatch_build.py)'

setup: $(VENV)/.dev ## install everything a developer needs into .venv

# --- running ------------------------------------------------------------------------------------

demo: $(VENV)/.demo ## run the whole system with traffic, on a nats-server of its own
	@$(BIN)/eventbus demo $(ARGS)

test: $(VENV)/.dev $(TESTED) ## run the tests, against real nats-servers
	@echo "==> tests, on $(WORKERS) processes"
	@$(call with,$(TESTED)) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

coverage: $(VENV)/.dev ## run the tests and show what they don't reach
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(VENV)/.bench $(MEASURED) ## compare with nats-py and other event buses; into bench/results/
	@$(call with,$(MEASURED)) -m bench $(ARGS)

bench-smoke: $(VENV)/.bench $(MEASURED) ## run each case of it once, in half a minute
	@$(call with,$(MEASURED)) -m bench --smoke $(ARGS)

bench-steady: $(VENV)/.dev $(MEASURED) ## 500 events/s for 60 s through two processes: losses, latency, memory
	@$(call with,$(MEASURED)) -m bench.steady $(ARGS)

bench-parking: $(VENV)/.dev $(MEASURED) ## 100,000 parked events: do they slow the others, and do all come back?
	@$(call with,$(MEASURED)) -m bench.parking $(ARGS)

bench-schedules: $(VENV)/.dev $(MEASURED) ## 100,000 delayed events: do they slow emits, do all come, how late?
	@$(call with,$(MEASURED)) -m bench.schedules $(ARGS)

bench-outbox: $(VENV)/.bench $(MEASURED) ## the outbox beside others: an emit's cost, a backlog's speed, the delay
	@$(call with,$(MEASURED)) -m bench.outboxes $(ARGS)

# --- breaking -----------------------------------------------------------------------------------

faults: $(VENV)/.dev $(TESTED) ## break things for real and check the promises; N=3 for three rounds
	@for round in $$(seq $(N)); do \
		echo "==> faults, round $$round of $(N)"; \
		$(call with,$(TESTED)) -m pytest -n $(WORKERS) -m faults tests/faults $(ARGS) || exit 1; \
	done

faults-naive: $(VENV)/.dev ## the same on a naive bus, where each case has to fail
	@EVENTBUS_TEST_PROFILE=naive $(BIN)/python -m pytest -n $(WORKERS) -W ignore -m faults tests/faults $(ARGS)

soak: $(VENV)/.dev $(TESTED) ## ten minutes of load with a random fault every ten seconds
	@$(call with,$(TESTED)) -m tests.faults.soak $(ARGS)

# --- checking -----------------------------------------------------------------------------------

check: fmt-check lint types layers test ## all that CI checks

fmt: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix-only .

fmt-check: $(VENV)/.dev
	@echo "==> format"
	@$(BIN)/ruff format --quiet --diff .

lint: $(VENV)/.dev ## ruff
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .

types: $(VENV)/.dev ## mypy strict and pyright strict
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> pyright"
	@$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(VENV)/.dev ## import-linter: dependencies point downwards
	@echo "==> import-linter"
	@$(BIN)/lint-imports --no-logo

# --- upkeep -------------------------------------------------------------------------------------

# Asks the interpreter, so that it makes no difference whether uv or pip installed.
constraints: $(VENV)/.dev ## write the versions now installed to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -c 'from importlib.metadata import distributions as all; \
		print(*sorted({f"{d.name}=={d.version}" for d in all() if d.name not in ("eventbus", "pip", "wheel")}, key=str.lower), sep="\n")'; \
	} > constraints.new
	@mv constraints.new constraints.txt && touch $(VENV)/.demo $(VENV)/.dev

clean: ## remove .venv and all caches
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
