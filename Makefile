# make demo and make test set up .venv by themselves; nothing else is needed than Python 3.11 and pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test slow test-cluster chaos chaos-short bench lint audit clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## set up .venv with everything

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	touch $(READY)

demo: $(READY)  ## a real sweep with real weights on a synthetic corpus
	$(BIN)/gemma-nli demo

test: $(READY)  ## the tests, under 8 minutes on 2 cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

test-cluster: $(READY)  ## the tests on several Ray nodes, under 15 minutes on 2 cores
	$(BIN)/python -m pytest -q -m cluster

chaos: $(READY)  ## kill drivers, workers and servers, damage files; a table of what was lost
	$(BIN)/python -m benchmarks.chaos

chaos-short: $(READY)  ## a few of each, all in one sweep
	$(BIN)/python -m benchmarks.chaos --short

bench: $(READY)  ## every benchmark: a table and benchmarks/results.json
	$(BIN)/python -m benchmarks

lint: $(READY)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(READY)  ## known holes in what we depend on, and in what we wrote
	$(BIN)/bandit -q -r gemma_nli -c pyproject.toml
	@$(BIN)/pip-audit --skip-editable --progress-spinner off > .audit.txt 2>&1; status=$$?; \
	grep -v 'could not be audited' .audit.txt; skipped=$$(grep -c 'could not be audited' .audit.txt); \
	if [ $$skipped -gt 1 ]; then \
	  echo "pip-audit: NOT AUDITED: $$skipped packages; the index reachable from here does not answer about advisories."; \
	  echo "           Run make audit where the index answers about advisories."; \
	fi; exit $$status

clean:  ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
