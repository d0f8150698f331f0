"""Directions of blocks: which are computed, and that the best one is."""

import numpy as np
import pytest
from keras import ops

from tests import oracles_norms
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.optimizers import block_steps


def low_rank(p, n, rank, scale, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(p, rank)) @ rng.normal(size=(rank, n))
    return (scale * x / np.linalg.norm(x)).astype("float32")


def blocks(scales, rank=3):
    """Large gradients of low rank and given Frobenius norms."""
    shapes = [(90, 70), (70, 80), (120, 66), (7,)]
    return [
        low_rank(*shape, rank, scale, seed)
        if len(shape) == 2
        else np.full(shape, scale / np.sqrt(7), "float32")
        for seed, (shape, scale) in enumerate(zip(shapes, scales))
    ]


def greedy(*gradients):
    roots = [ops.ones((), "float32")] * len(gradients)
    steps = block_steps.greedy_spectral_steps(
        gradients, roots, "standard", "float32"
    )
    return steps.directions, ops.stack(steps.dual_norms)


@pytest.mark.parametrize("best", range(4))
def test_the_best_block_is_found_whichever_it_is(best, mode):
    if mode != "eager" and best != 1:
        return  # Compiled once.
    scales = [1.0] * 4
    scales[best] = 3.0
    gradients = blocks(scales)
    directions, duals = evaluate(greedy, *gradients, mode=mode)
    norms = [oracles_norms.dual_norm(g, 2) for g in gradients]
    assert np.argmax(duals) == np.argmax(norms) == best
    assert norms[best] * 0.99 <= duals[best] <= norms[best] * (1 + 1e-5)
    if best < 3:
        inner = np.sum(directions[best] * gradients[best])
        assert_close(inner, duals[best], 1e-4)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces both branches")
def test_a_sharper_bound_spares_polar_factors(monkeypatch):
    computed = []
    polar = block_steps.polar_and_nuclear

    def counted(x, **options):
        computed.append(tuple(x.shape))
        return polar(x, **options)

    monkeypatch.setattr(block_steps, "polar_and_nuclear", counted)
    # By Frobenius norms alone any could win: sqrt(66) times 0.3 is above 1.
    greedy(*map(ops.convert_to_tensor, blocks([0.3, 1.0, 0.3, 0.1])))
    assert computed == [(70, 80)]


def test_a_block_without_gradient_has_no_norm():
    gradients = [None, low_rank(5, 4, 2, 1.0, 0), None]
    directions, duals = greedy(*gradients)
    assert directions[0] is None and directions[2] is None
    duals = ops.convert_to_numpy(duals)
    assert duals[0] == duals[2] == 0 < duals[1]


def test_a_factor_no_better_than_promised_does_not_hide_a_better_block(
    monkeypatch,
):
    """The Frobenius norm of the first block is more than its step gains."""
    polar = block_steps.polar_and_nuclear

    def worst(x, accuracy):
        factor, nuclear = polar(x, exact=True)
        share = block_steps.POLAR_ACCURACIES[accuracy]
        share = share if x.shape[0] == 3 else 1.0
        return share * factor, share * nuclear

    monkeypatch.setattr(block_steps, "polar_and_nuclear", worst)
    first = np.zeros((3, 2), "float32")
    first[0, 0] = 1.0
    second = 0.475 * np.eye(2, dtype="float32")
    roots = [ops.ones((), "float32")] * 2
    steps = block_steps.greedy_spectral_steps(
        [ops.convert_to_tensor(first), ops.convert_to_tensor(second)],
        roots,
        "fast",
        "float32",
    )
    duals = [float(ops.convert_to_numpy(dual)) for dual in steps.dual_norms]
    np.testing.assert_allclose(duals, [0.85, 0.95], rtol=1e-5)
