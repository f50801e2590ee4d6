# Two commands do all the set-up on a fresh machine with Python 3.10 or newer:
#   make bench   the comparison on problems that need no download, and its page
#   make test    every check the project has
#   make attack  the attacks of tests/attacks at length (half an hour), and their table in docs/reliability.md
#   make gpu     what a GPU is needed for, with the torch that PYTHON has (eight minutes), and its page
# Another Python: make bench PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
RESULTS ?= results/embedded
ATTACK ?= 25
GPU ?= --page benchmarks/micro/step-gpu.md
BIN := $(VENV)/bin
CONFIG := setup.cfg pyproject.toml constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench test attack gpu docs clean

bench: $(VENV)/.bench
	@$(BIN)/mtlweights bench --out $(RESULTS)

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -q

attack: export MTLWEIGHTS_ATTACK = $(ATTACK)
attack: export MTLWEIGHTS_ATTACK_TABLE = docs/reliability.md
attack: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -q tests/attacks

gpu:
	@$(PYTHON) benchmarks/gpu/run.py $(GPU)

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) docs/_build build *.egg-info

# A stamp per extra: a second run installs nothing until one of the files in CONFIG changes.
# DeepSpeed (tests alone) is no part of an extra: its build wants the torch that is installed.
$(VENV)/.bench $(VENV)/.dev: $(VENV)/.%: $(CONFIG) | $(VENV)/bin/python
	@echo "Installing mtlweights with extra '$*' into $(VENV) (minutes, the first time) ..."
	@$(PIP_INSTALL) -e ".[$*]"
	@[ $* != dev ] || $(PIP_INSTALL) --no-build-isolation deepspeed
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: '$(PYTHON)' was not found; install Python 3.10 or newer, or name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: Python 3.10 or newer is needed, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
