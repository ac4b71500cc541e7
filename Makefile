# make demo   a short tour on real data
# make test   fast tests, a smoke test of the built wheel, then lint, types and import contract
# Each creates .venv first, and updates it when pyproject.toml has changed.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-all lint wheel docs clean

demo: $(STAMP)
	$(BIN)/python -m examples.demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -q -m slow tests/test_wheel.py
	$(MAKE) lint

test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "slow or not slow"
	$(MAKE) lint

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_docs.py

wheel: $(STAMP)
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(STAMP): pyproject.toml .ci/environment
	./.ci/environment $(VENV)
	@touch $(STAMP)
