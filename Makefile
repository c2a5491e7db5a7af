# Every command of the template; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv

.DEFAULT_GOAL := help
.PHONY: help test lint bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

test: $(VENV)/ready ## generate projects and test everything they can do
	$(VENV)/bin/pytest

lint: $(VENV)/ready ## check style and formatting of the template and of the un-baked tree
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/yamllint --strict .

# -- benchmarks ------------------------------------------------------------------------------------

BENCHMARKS ?= digits lightning_overhead
BENCH_VENV := .cache/bench-venv

bench: $(BENCH_VENV)/ready ## measure side by side: accuracy with scikit-learn, speed with plain PyTorch
	for name in $(BENCHMARKS); do $(BENCH_VENV)/bin/python benchmarks/$$name.py || exit 1; done

$(BENCH_VENV)/ready: <<cookiecutter.project>>/pyproject.toml <<cookiecutter.project>>/constraints.txt
	mkdir -p $(dir $(BENCH_VENV))
	$(MAKE) -C "<<cookiecutter.project>>" PYTHON=$(PYTHON) VENV=../$(BENCH_VENV) ../$@

# -- upkeep ----------------------------------------------------------------------------------------

clean: ## remove what the commands made
	rm -rf $(VENV) .cache demo-output .pytest_cache .ruff_cache

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --requirement pyproject.toml --group dev
	touch $@
