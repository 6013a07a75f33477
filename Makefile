# Five words: make test, lint, docs, bench, release. They run in the environment that the README makes, .venv;
# make test PYTHON=/path/to/python names another one.
PYTHON ?= .venv/bin/python

.PHONY: test lint docs bench release

test: ## The ordinary suite, as the README and .ci/run run it
	$(PYTHON) -m pytest -n auto --dist loadfile

lint: ## Style, formatting and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m basedpyright --pythonpath $(PYTHON)

docs: ## The site, in site/; every warning is an error
	$(PYTHON) -m mkdocs build --strict

bench: ## Speed beside the committed ratios (docs/testing.md says what it needs)
	$(PYTHON) -m benchmarks --check

release: ## The distributions in dist/, and what is left to do
	$(PYTHON) -m scripts.release
