"""What every test starts from: float64 everywhere, one seed, no leftovers."""

import collections
import gc
import math
import os
import pathlib
import zlib

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One process a core: threads of one would only wait for another's.
    for _name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import keras
import pytest

from tests import helpers

# What was imported is never garbage: not looked through again and again.
gc.collect()
gc.freeze()


@pytest.fixture(autouse=True)
def fresh_session():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1337)


@pytest.fixture(autouse=True, scope="module")
def few_compiled_functions():
    """Forgets what JAX compiled before the kernel refuses it more memory.

    Each function takes some mappings of memory, of which Linux allows a
    process 65,530; beyond that it is killed.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if helpers.BACKEND == "jax" and maps.exists():
        if maps.read_bytes().count(b"\n") > 20_000:
            import jax

            jax.clear_caches()
            gc.collect()


@pytest.fixture(params=helpers.MODES)
def mode(request):
    """Every way this backend runs a function, see `helpers.MODES`."""
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a grid of sizes one case runs in every mode, the others in the first.

    Compiling takes most of the time, and what it may spoil is an operation
    rather than a size. Whatever else a parameter is, a name, a flag, NaN, is
    a variant of the code: each has its case in every mode. The rest of the
    grid is `slow`.
    """
    grids = collections.defaultdict(list)
    for item in items:
        parameters = dict(item.callspec.params) if _has_cases(item) else {}
        if parameters.pop("mode", helpers.MODES[0]) == helpers.MODES[0]:
            continue
        mode = item.callspec.params["mode"]
        parameters.pop("dtype", None)
        variant = tuple(
            (name, repr(value))
            for name, value in sorted(parameters.items())
            if not _is_a_size(value)
        )
        grids[item.nodeid.split("[")[0], mode, variant].append(item)
    for cases in grids.values():
        # The first and the last are often the degenerate ones.
        chosen = cases[len(cases) // 2]
        for item in cases:
            if item is not chosen:
                item.add_marker(pytest.mark.slow)
    _keep_few(items)


def _keep_few(items):
    """Of a test that is `costly` some cases stay, the others are `slow`.

    Which they are differs between tests, so that each kind of optimizer or
    layer stays in some.
    """
    tests = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("costly") and _has_cases(item):
            if not item.get_closest_marker("slow"):
                tests[item.nodeid.split("[")[0]].append(item)
    for name, cases in tests.items():
        keep = cases[0].get_closest_marker("costly").kwargs.get("keep", 1)
        start = zlib.crc32(name.encode())
        kept = {
            (start + i * len(cases) // keep) % len(cases) for i in range(keep)
        }
        for place, item in enumerate(cases):
            if place not in kept:
                item.add_marker(pytest.mark.slow)


def _has_cases(item):
    return hasattr(item, "callspec")


def _is_a_size(value):
    if isinstance(value, (tuple, list)):
        return True
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)
