"""The two forms of a transition, and the rule that chooses one."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.layers.recurrence import Dense
from tf_spectral.layers.recurrence import DiagonalPlusLowRank
from tf_spectral.layers.recurrence import low_rank_pays


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("units", (2, 7, 64, 128, 500))
@pytest.mark.parametrize("rows", (1, 10, 128, 10**6))
def test_low_rank_only_where_it_costs_less(units, rows):
    """Forward flops of math.md 2.7; both pay for P and Q."""
    for rank in range(1, 2 * units + 1):
        low_rank = 4 * units * rank * rows
        dense = 2 * units**2 * rank + 2 * units**2 * rows
        assert low_rank_pays(units, rank, rows) == (low_rank <= dense)


@pytest.mark.parametrize("units", (2, 8, 128))
def test_half_the_units_is_the_limit_for_many_rows(units):
    assert low_rank_pays(units, units // 2)
    assert not low_rank_pays(units, units // 2 + 1)
    assert low_rank_pays(units, 0)


def test_few_rows_favour_low_rank():
    """Forming the matrix must pay off over the rows it multiplies."""
    assert low_rank_pays(64, 128, 16)
    assert not low_rank_pays(64, 128, 1000)
    assert not low_rank_pays(64, 128, None)


def low_rank(units, rank, dtype="float64"):
    tensors = (
        normal(units),
        normal(units, rank, seed=1),
        normal(units, rank, seed=2),
    )
    return DiagonalPlusLowRank(*(ops.cast(t, dtype) for t in tensors))


def matrix_of(transition):
    sigma, p, q = (ops.convert_to_numpy(t) for t in transition)
    return np.diag(sigma) - p @ q.T


@pytest.mark.parametrize("units,rank", [(1, 1), (5, 1), (5, 2), (4, 8), (3, 0)])
def test_both_forms_multiply_by_the_matrix(units, rank, mode):
    low = low_rank(units, rank)
    matrix = matrix_of(low)
    h = normal(3, units, seed=3)
    for form in (low, Dense(ops.convert_to_tensor(matrix))):
        forward = evaluate(lambda h, f=form: f.forward()(h), h, mode=mode)
        assert_close(forward, h @ matrix, 1e-12)
        backward = evaluate(lambda d, f=form: f.backward()(d), h, mode=mode)
        assert_close(backward, h @ matrix.T, 1e-12)


@pytest.mark.parametrize("units,rank", [(1, 1), (7, 2), (6, 2), (5, 2), (4, 8)])
def test_sums_over_chunks_are_the_gradients(units, rank):
    """In either way to keep the sums: units against three times the rank."""
    low = low_rank(units, rank)
    dense = Dense(ops.convert_to_tensor(matrix_of(low)))
    h, delta = normal(4, units, seed=3), normal(4, units, seed=4)
    by_matrix = h.T @ delta
    p, q = (ops.convert_to_numpy(t) for t in low[1:])
    by_low_rank = np.diag(by_matrix), -by_matrix @ q, -by_matrix.T @ p
    for form, expected in ((dense, (by_matrix,)), (low, by_low_rank)):
        sums = form.zeros()
        for half in (slice(0, 1), slice(1, 4)):
            rows = (ops.convert_to_tensor(t[half]) for t in (h, delta))
            sums = form.accumulate(sums, *rows)
        actual = form.gradients(sums)
        for gradient, values in zip(actual, expected, strict=True):
            assert_close(ops.convert_to_numpy(gradient), values, 1e-12)


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
@pytest.mark.parametrize("units,rank", [(8, 2), (4, 2)])
def test_half_precision_sums_in_float32(units, rank, dtype):
    low = low_rank(units, rank, dtype)
    dense = Dense(ops.zeros((units, units), dtype))
    for form in (low, dense):
        rows = ops.ones((2, units), dtype)
        for sums in (form.zeros(), form.accumulate(form.zeros(), rows, rows)):
            dtypes = {keras.backend.standardize_dtype(s.dtype) for s in sums}
            assert dtypes == {"float32"}


@pytest.mark.parametrize(
    "form,reflectors,rows,expected",
    [
        ("dense", 1, 1, Dense),
        ("low_rank", 8, 10**6, DiagonalPlusLowRank),
        ("auto", 2, 10**6, DiagonalPlusLowRank),
        ("auto", 3, 10**6, Dense),
        ("auto", 3, 2, DiagonalPlusLowRank),
        ("auto", (1, 3), None, DiagonalPlusLowRank),
        ("auto", None, None, Dense),
    ],
)
def test_form_of_a_cell(form, reflectors, rows, expected):
    """Ranks count the reflectors of both sides: 4 of 8 units is the limit."""
    cell = SpectralRNNCell(8, reflectors, form=form)
    cell.build((None, 2))
    transition = cell.transition(rows)
    assert type(transition) is expected
    h = ops.ones((1, 8), "float32")
    assert_close(
        ops.convert_to_numpy(transition.forward()(h)),
        ops.convert_to_numpy(ops.matmul(h, cell.matrix())),
        1e-5,
    )
