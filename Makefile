# Every command of the template; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/ready ## the whole loop on this machine, with a report to look at: [OUTPUT=folder]
	$(VENV)/bin/python -m demo --output $(or $(OUTPUT),demo-output)

test: $(VENV)/ready ## generate projects and test everything they can do
	$(VENV)/bin/pytest

lint: $(VENV)/ready ## check style and formatting of the template and of the un-baked tree
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/yamllint --strict .

clean: ## remove what the commands made
	rm -rf $(VENV) .cache demo-output .pytest_cache .ruff_cache

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --requirement pyproject.toml --group dev
	touch $@
