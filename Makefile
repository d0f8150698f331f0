# Two commands do all the set-up: `make demo` and `make test`.

# The first Python of a version that TensorFlow has builds for and that runs:
# a name on the PATH may be a stub of another tool. $(1): newest minor version.
find-python = $(shell for python in python3.11 python3.12 python3.13 python3; \
    do $$python -c 'import ensurepip, sys, venv; \
    sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(1)))' \
    >/dev/null 2>&1 && echo $$python && break; done)
PYTHON ?= $(call find-python,13)
VENV ?= .venv
BIN = $(VENV)/bin
LOWEST = .venv-lowest
# One process a core: most tests trace small graphs, on one core each.
PYTEST = -m pytest --numprocesses auto --dist worksteal

# The quick suite compiles thousands of functions that run once: what LLVM would
# spend on them is for `make test-all`.
QUICK = XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0"

# JAX compiles each operation alone, and again in each process but for this.
KEEP_COMPILED = JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/compiled \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# TensorFlow's remarks on the processor; errors are still shown.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-all test-backends test-lowest bench docs lint format clean

# The environment, remade when the requirements change.
$(VENV)/ready: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python was found. Expected Python" \
	    "3.11, 3.12 or 3.13 with the module venv on the PATH (Debian:" \
	    "apt install python3-venv), or: make PYTHON=/path/to/python $@"; \
	    exit 1; }
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
	$(QUICK) $(BIN)/python $(PYTEST)

test-all: $(VENV)/ready-backends lint
	$(BIN)/python $(PYTEST) -m "slow or not slow"
	$(MAKE) test-backends

test-backends: $(VENV)/ready-backends
	$(QUICK) $(KEEP_COMPILED) KERAS_BACKEND=jax $(BIN)/python $(PYTEST)
	KERAS_BACKEND=torch $(BIN)/python $(PYTEST)

# The lowest versions that setup.cfg allows; of these TensorFlow has no build
# for Python 3.13.
test-lowest: PYTHON = $(call find-python,12)
test-lowest:
	@test -n "$(PYTHON)" || { echo "Expected Python 3.11 or 3.12."; exit 1; }
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --upgrade pip
	$(LOWEST)/bin/pip install --quiet -e .[examples,test] \
	    tensorflow==2.18.* keras==3.8.* numpy==2.0.*
	$(QUICK) $(LOWEST)/bin/python $(PYTEST)

BENCHMARKS = recurrent dense optimizers orthogonal bounds input_pipeline

bench: $(VENV)/ready
	for name in $(BENCHMARKS); do \
	    $(BIN)/python benchmarks/$$name.py || exit 1; done

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
