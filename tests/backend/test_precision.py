"""Bounds at the ends of the floating range, in half precision, under TF32."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests.helpers import BACKEND
from tf_spectral.backend import precision
from tf_spectral.linalg import polar
from tf_spectral.linalg.norms import frobenius_norm
from tf_spectral.linalg.norms import nuclear_norm_upper_bound
from tf_spectral.linalg.norms import spectral_norm_upper_bound
from tf_spectral.linalg.polar import _iterate
from tf_spectral.linalg.polar import polar_and_nuclear


def numbers(x):
    return ops.convert_to_numpy(ops.cast(x, "float64"))


def spread(p, n, seed, tail):
    """Entries over many orders of magnitude."""
    entries = np.random.default_rng(seed).normal(size=(p, n))
    x = entries * np.exp(np.clip(tail * entries, -60, 40))
    return x / np.abs(x).max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("accuracy", ["high", "standard", "fast"])
def test_promises_hold_for_the_factor_that_is_returned(accuracy, dtype):
    for seed, (p, n) in enumerate([(40, 40), (9, 64), (64, 5), (30, 1)]):
        x = ops.cast(ops.convert_to_tensor(spread(p, n, seed, 0.5)), dtype)
        q, nu = polar_and_nuclear(x, accuracy=accuracy)
        q, x = numbers(q), numbers(x)
        assert np.linalg.norm(q, 2) <= 1 + 1e-6
        assert numbers(nu) <= np.sum(q * x) * (1 + 1e-6)
        assert numbers(nu) >= 0.5 * np.linalg.norm(x, "nuc")


def test_one_column_is_not_longer_than_it_is():
    """Without a margin for rounding `nu` exceeds the norm of many columns."""
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(200, 1)).astype("float32")
        _, nu = polar_and_nuclear(x)
        assert numbers(nu) <= np.linalg.norm(x.astype("float64"))


@pytest.mark.parametrize("accuracy,share", [("standard", 0.99), ("fast", 0.85)])
def test_what_a_factor_captures_of_the_frobenius_norm(accuracy, share):
    """The floors of DSGD's screening; a long tail is the hard case."""
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    spectra = [
        np.ones(64),
        np.r_[1.0, np.full(63, 0.05)],
        np.r_[1.0, np.full(63, 0.15)],
        np.r_[1.0, np.full(63, 7e-4)],
        *(np.exp(-k * np.arange(64.0)) for k in (0.01, 0.1, 1.0)),
    ]
    cases = [u * s @ u.T for s in spectra]
    cases += [spread(64, 64, seed, 6.0) for seed in range(3)]
    for x in cases:
        _, nu = polar_and_nuclear(x.astype("float32"), accuracy=accuracy)
        assert numbers(nu) >= share * np.linalg.norm(x)


@pytest.mark.parametrize("shape", [(9, 6), (4, 11), (30, 1)])
@pytest.mark.costly(keep=3)
def test_bounds_at_the_ends_of_the_range(shape, mode):
    def norms(x):
        q, nu = polar_and_nuclear(x)
        bounds = nuclear_norm_upper_bound(x), spectral_norm_upper_bound(x)
        return q, nu, *bounds, frobenius_norm(x)

    x = spread(*shape, 0, 0.0)
    compiled = helpers._compile(norms, mode)
    # Entries below 1.2e-38 are zero to a processor: the least ones are not.
    for size in (3.3e38, 1e38, 1.0, 1e-33):
        scaled = (x * size).astype("float32")
        found = compiled(ops.convert_to_tensor(scaled))
        q, nu, nuclear, spectral, frobenius = (numbers(v) for v in found)
        assert np.linalg.norm(q, 2) <= 1 + 1e-6
        exact = np.linalg.svd(scaled.astype("float64"), compute_uv=False)
        whole = np.linalg.norm(exact)
        # What no float holds is infinite, and that is a bound.
        largest = float(np.finfo("float32").max)
        assert spectral >= min(exact[0], largest)
        assert nuclear >= min(exact.sum(), largest)
        if exact.sum() < largest / 2:
            assert spectral <= 1.1 * exact[0]
            assert nuclear <= 1.5 * exact.sum()
            assert abs(frobenius - whole) <= 1e-6 * whole
            assert 0.95 * exact.sum() <= nu <= exact.sum()
        else:
            assert nuclear > largest / 2 and frobenius > largest / 2


def rounded_to_tf32(x):
    """The 10 bits of the mantissa that a TF32 product reads."""
    bits = np.asarray(x, "float32").view("uint32")
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view("float32")


def test_short_products_would_break_a_bound():
    """Why `in_full_precision` is there: the bound of a rounded matrix."""
    x = np.full((8, 8), 1 + 2.0**-11, "float32") - np.float32(2.0**-13)
    bound = numbers(spectral_norm_upper_bound(rounded_to_tf32(x)))
    assert bound < np.linalg.norm(x.astype("float64"), 2)


def test_where_products_may_be_short_they_are_not(monkeypatch):
    x = spread(12, 7, 1, 0.1).astype("float32")
    plain = numbers(spectral_norm_upper_bound(x))
    seen = []

    @precision.in_full_precision
    def note(x):
        seen.append((str(x.dtype), _setting()))
        return x, {"twice": x + x}

    monkeypatch.setattr(precision, "products_may_be_short", lambda: True)
    value, rest = note(ops.convert_to_tensor(x))
    assert "float32" in str(value.dtype)
    np.testing.assert_array_equal(numbers(rest["twice"]), 2 * numbers(value))
    dtype, setting = seen[0]
    if BACKEND == "tensorflow":
        assert "float64" in dtype
    else:
        assert setting == "highest"
    np.testing.assert_allclose(
        numbers(spectral_norm_upper_bound(x)), plain, rtol=1e-5
    )


def test_half_precision_and_lists_are_no_exception(monkeypatch):
    """They become `float32` first, whose products may be short."""
    seen = []

    def noted(z, schedule):
        seen.append(helpers.dtype_of(z))
        return _iterate(z, schedule)

    monkeypatch.setattr(polar, "_iterate", noted)
    monkeypatch.setattr(precision, "products_may_be_short", lambda: True)
    x = spread(12, 7, 1, 0.1)
    q, nu = polar_and_nuclear(ops.cast(x, "bfloat16"))
    assert helpers.dtype_of(q) == "bfloat16"
    assert helpers.dtype_of(nu) == "float32"
    polar_and_nuclear(x.tolist())
    # TensorFlow takes both to float64; a list is float64 on JAX, as set here.
    assert (
        seen
        == {
            "tensorflow": ["float64", "float64"],
            "jax": ["float32", "float64"],
            "torch": ["float32", "float32"],
        }[BACKEND]
    )


def test_processors_need_nothing():
    assert not precision.products_may_be_short()


def _setting():
    if BACKEND == "jax":
        import jax

        return jax.config.jax_default_matmul_precision
    if BACKEND == "torch":
        import torch

        return torch.get_float32_matmul_precision()
    return None
