"""Steps of blocks: which are computed, that the best is taken, how long."""

import numpy as np
import pytest
from keras import ops

from tests import oracles_norms
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.linalg import norms
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
    curvature = ops.ones((len(gradients),), "float32")
    steps = block_steps.block_steps(gradients, curvature, 2, "greedy")
    return steps.directions, steps.dual_norms, steps.chosen


@pytest.mark.parametrize("best", range(4))
def test_the_best_block_is_found_whichever_it_is(best, mode):
    if mode != "eager" and best != 1:
        return  # Compiled once.
    scales = [1.0] * 4
    scales[best] = 3.0
    gradients = blocks(scales)
    directions, duals, chosen = evaluate(greedy, *gradients, mode=mode)
    assert np.flatnonzero(chosen).tolist() == [best]
    exact = [oracles_norms.dual_norm(g, 2) for g in gradients]
    assert np.argmax(duals) == np.argmax(exact) == best
    assert exact[best] * 0.99 <= duals[best] <= exact[best] * (1 + 1e-5)
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
    directions, duals, _ = greedy(*gradients)
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
    steps = block_steps.block_steps(
        [ops.convert_to_tensor(first), ops.convert_to_tensor(second)],
        ops.ones((2,), "float32"),
        2,
        "greedy",
        "fast",
    )
    duals = ops.convert_to_numpy(steps.dual_norms)
    np.testing.assert_allclose(duals, [0.85, 0.95], rtol=1e-5)
    assert ops.convert_to_numpy(steps.chosen).tolist() == [False, True]


@pytest.mark.parametrize("norm", [1, 2, "inf"])
def test_a_step_is_the_duality_map_over_the_curvature(norm):
    """Of the blocks that are chosen; a radius shortens, infinity stops."""
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=s).astype("float32") for s in [(5, 3), (4,)]]
    curvature = ops.convert_to_tensor([3.0, 0.5], "float32")
    steps = block_steps.block_steps(
        [ops.convert_to_tensor(g) for g in gradients],
        curvature,
        norm,
        ops.convert_to_tensor([True, True]),
        "exact",
    )
    scales, lengths = block_steps.step_scales(steps, 0.25, curvature)
    for i, gradient in enumerate(gradients):
        direction = steps.directions[i]
        if norm != 2:
            direction = norms.duality_map(direction, norm)
        actual = float(scales[i]) * ops.convert_to_numpy(direction)
        expected = oracles_norms.duality_map(gradient, norm)
        assert_close(actual, 0.25 * expected / float(curvature[i]), 1e-5)
        dual = oracles_norms.dual_norm(gradient, norm)
        assert_close(float(lengths[i]), 0.25 * dual / float(curvature[i]), 1e-5)
    longest = ops.convert_to_tensor(
        [np.inf, 0.5 * float(lengths[1])], "float32"
    )
    shorter, _ = block_steps.step_scales(steps, 0.25, curvature, longest)
    ratios = ops.convert_to_numpy(shorter) / ops.convert_to_numpy(scales)
    assert_close(ratios, [1.0, 0.5], 1e-6)
    curvature = ops.convert_to_tensor([np.inf, 1.0], "float32")
    stopped, _ = block_steps.step_scales(steps, 0.25, curvature)
    assert float(stopped[0]) == 0.0 < float(stopped[1])


def test_greedy_weighs_gradients_against_curvature():
    """The largest gradient is in the first block, the best step is not."""
    gradients = [np.full((2, 2), g, "float32") for g in (3.0, 1.0, 2.0)]
    curvature = np.array([100.0, 1.0, 9.0], "float32")
    for norm in (1, 2, "inf"):
        steps = block_steps.block_steps(
            [ops.convert_to_tensor(g) for g in gradients],
            ops.convert_to_tensor(curvature),
            norm,
            "greedy",
        )
        assert ops.convert_to_numpy(steps.chosen).tolist() == [0, 1, 0]
