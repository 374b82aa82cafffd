# Every target makes its own environment in .venv; nothing but Python >= 3.11 and make is needed before.
#   make demo            samples, then a training with and without augmentation, into demo/ (some minutes)
#   make test            the quick tests and the examples in the docstrings; SLOW=1 adds the slow ones, GPU=1 those for CUDA;
#                        a process per core (PYTEST_ARGS="-n 0": one)
#   make test-matrix     the same with three sets of versions: those of constraints.txt, the newest (Python 3.12 or 3.13), and
#                        the lowest that pyproject.toml allows (Python 3.11), in .venv, .venv-newest and .venv-lowest
#   make lint            style, types, and the direction of imports
#   make docs            the documentation, into site/html/
#   make package         wheel and sdist, into dist/, and a trial of the wheel in an environment of its own

PYTHON ?= python3 python3.13 python3.12 python3.11
PYTEST_ARGS ?=

VENV := .venv
VERSIONS := 3.11 3.12 3.13 3.14
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
MARKERS := $(if $(filter 1,$(SLOW)),,not slow)$(if $(filter 1,$(GPU)),,$(if $(filter 1,$(SLOW)),, and )not gpu)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-matrix test-newest test-lowest lint docs package clean

help:
	@sed -n '1,/^$$/p' Makefile | sed -n 's/^# \{0,1\}//p'

demo: $(VENV)/.demo
	$(BIN)/ubf demo --out demo

test: $(VENV)/.test
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n auto --dist worksteal -m "$(MARKERS)" \
	    --junitxml=$(VENV)/tests.xml $(PYTEST_ARGS)

test-matrix: test test-newest test-lowest

test-newest:
	$(MAKE) test VENV=$(VENV)-newest VERSIONS="3.12 3.13" CONSTRAINTS=

test-lowest:
	$(MAKE) test VENV=$(VENV)-lowest VERSIONS=3.11 CONSTRAINTS=constraints-lowest.txt

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs site/html

package: $(VENV)/.test
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m pytest -m slow tests/test_packaging.py $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-lowest build dist site demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ubf_augment tests benchmarks docs -name __pycache__ -type d -exec rm -rf {} + 2>/dev/null || true

# One stamp per extra: a second call finds it and goes straight to work.
$(VENV)/.demo $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	@echo "Installing ubf_augment[$*] into $(VENV) (some minutes the first time: PyTorch is large) ..."
	@$(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=-c %) -e '.[$*]'
	@touch $@

$(VENV)/.created:
	@for candidate in $(PYTHON); do \
	    if "$$candidate" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(VERSIONS)".split())' >/dev/null 2>&1; then \
	        python="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$${python:-}" ]; then \
	    echo "$(VENV) needs Python $$(echo $(VERSIONS) | sed 's/ / or /g'). Tried: $(PYTHON) (python3 here: $$(python3 --version 2>&1))." >&2; \
	    echo "Install one, or tell make where it is: PYTHON='/path/to/python$(firstword $(VERSIONS)) $(PYTHON)'" >&2; \
	    exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@touch $@
