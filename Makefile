# Two commands do all the set-up: `make serve` and `make test`. Both install into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# A file's tests share servers, so they stay together; files in their order, for sorted by number of tests the longest
# begin last. `make test PARALLEL=` is for a debugger.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CODE := clicv2 service training client tests bench docs docker

.PHONY: help redis-server chromium nginx docs serve test test-compose chaos lint format schema dashboards bench clean
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(VENV)/.serve ## Install without torch and answer on 127.0.0.1:8000 (HOST, PORT)
	$(BIN)/clicv2 serve

test: $(VENV)/.dev $(VENV)/.triton $(VENV)/.prometheus redis-server chromium nginx ## Install all that the tests need, real servers included, then run them
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: $(VENV)/.dev ## Style, types, and who may import whom
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

schema: $(VENV)/.dev ## Write docs/openapi.json, docs/errors.md and docs/configuration.md anew, from the code
	$(BIN)/python docs/reference.py

docs: $(VENV)/.dev ## Build the documentation into site/; any warning is an error
	$(BIN)/python -m sphinx -E -W --keep-going -q -d .doctrees -b html docs site

dashboards: $(VENV)/.dev ## Write Grafana's dashboards anew, from the code and the runbooks
	$(BIN)/python docker/grafana/generate.py

bench: $(VENV)/.dev $(VENV)/.triton redis-server ## Measure the bare loop and the service's shapes, side by side in one run
	PYTHONPATH=tests/support $(BIN)/python -m bench $(ARGS)

clean: ## Remove the environment and everything generated
	rm -rf $(VENV) site .doctrees .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

test-compose: $(VENV)/.dev ## Build the images, follow the documents with them, break the stack (needs Docker)
	$(BIN)/python -m pytest tests/compose/documented.py tests/compose/stack.py $(ARGS)

chaos: $(VENV)/.dev $(VENV)/.triton $(VENV)/.prometheus redis-server ## Break things under load at the full size of docs/promises.md, and print what was measured
	CHAOS=full CLICV2_MODEL_RUNS=10000 $(BIN)/python -m pytest --timeout 3600 tests/chaos tests/property/test_queue_model.py $(ARGS)

redis-server:
	@command -v redis-server >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server; } \
	  || { echo "the tests need redis-server >= 6.2 on PATH"; exit 1; }

chromium:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
	  || { echo "the tests of the page need chromium on PATH"; exit 1; }

nginx:
	@command -v nginx >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; } \
	  || { echo "the tests of the documentation need nginx on PATH"; exit 1; }

# The real server, as NVIDIA packs it for Python; only its program is used.
$(VENV)/.triton: | $(VENV)/bin/python
	$(PIP) --no-deps --upgrade --target $(VENV)/triton nvidia-pytriton==0.7.0
	cp $(VENV)/triton/pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub \
	  $(VENV)/triton/pytriton/tritonserver/backends/python/
	@touch $@

# Prometheus, Alertmanager's amtool and Redis' exporter: Debian's, unpacked and not installed.
$(VENV)/.prometheus: | $(VENV)/bin/python
	mkdir -p $(VENV)/prometheus/debs && cd $(VENV)/prometheus/debs \
	  && { apt-get download -qq prometheus prometheus-alertmanager prometheus-redis-exporter || { apt-get update -qq \
	  && apt-get download -qq prometheus prometheus-alertmanager prometheus-redis-exporter; }; } \
	  && for deb in *.deb; do dpkg-deb -x $$deb ..; done && cd .. && rm -rf debs usr/share lib
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.dev: pyproject.toml client/pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[dev]' -e client
	@touch $@ $(VENV)/.serve
