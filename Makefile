# Two commands do all the set-up: `make demo` and `make test`.

# The first Python that is here, runs (a shim may not) and is supported.
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; \
    do $$python -c "$(SUPPORTED)" >/dev/null 2>&1 && echo $$python && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
LOWEST = .venv-lowest
# One process a core: most tests trace small graphs, on one core each.
PYTEST = -m pytest --numprocesses auto --dist worksteal

# TensorFlow's remarks on the processor; errors are still shown.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-all test-backends test-lowest bench docs lint format clean

# The environment, remade when the requirements change.
$(VENV)/ready: setup.cfg pyproject.toml
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 is needed, and none is on \
	    the PATH. Install one, or name it: make PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e .[examples,test]
	touch $@

$(VENV)/ready-backends: $(VENV)/ready
	# This version has a build for processors only; others bring gigabytes.
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e .[jax,torch]
	touch $@

demo: $(VENV)/ready
	$(BIN)/python keras_examples/pixel_images.py

test: $(VENV)/ready
	$(BIN)/python $(PYTEST)

test-all: $(VENV)/ready-backends lint
	$(BIN)/python $(PYTEST) -m "slow or not slow"
	$(MAKE) test-backends

test-backends: $(VENV)/ready-backends
	KERAS_BACKEND=jax $(BIN)/python $(PYTEST)
	KERAS_BACKEND=torch $(BIN)/python $(PYTEST)

# The lowest versions that setup.cfg allows.
test-lowest:
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 is needed))
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --upgrade pip
	$(LOWEST)/bin/pip install --quiet -e .[examples,test] \
	    tensorflow==2.18.* keras==3.8.* numpy==2.0.*
	$(LOWEST)/bin/python $(PYTEST)

bench: $(VENV)/ready
	$(BIN)/python benchmarks/recurrent.py
	$(BIN)/python benchmarks/dense.py
	$(BIN)/python benchmarks/optimizers.py
	$(BIN)/python benchmarks/orthogonal.py

docs: $(VENV)/ready
	$(BIN)/pip install --quiet -e .[docs]
	$(BIN)/mkdocs build --strict

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .pytest_cache .ruff_cache
