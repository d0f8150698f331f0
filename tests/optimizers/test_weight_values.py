"""Numbers for some weights of a model, by the ends of their paths."""

import pytest

from tf_spectral.optimizers.weight_values import values_by_weight

NAMES = ("net/rnn/cell/kernel", "net/rnn/cell/bias", "net/out/kernel")


def test_the_longer_name_wins():
    given = {"kernel": 1.0, "out/kernel": 2.0, "default": 3.0}
    assert values_by_weight("x", given, NAMES) == [1.0, 3.0, 2.0]
    # After loading, paths are shorter.
    given = {"net/rnn/cell/kernel": 1.0, "net/out/kernel": 2.0, "bias": 3.0}
    short = ("cell/kernel", "cell/bias", "out/kernel")
    assert values_by_weight("x", given, short) == [1.0, 3.0, 2.0]
    given = {"a/kernel": 1.0, "b/kernel": 2.0}
    with pytest.raises(ValueError, match="several"):
        values_by_weight("x", given, ("kernel",))
    # A part of a word is no name.
    with pytest.raises(ValueError, match="does not exist"):
        values_by_weight("x", {"ernel": 1.0, "default": 1.0}, NAMES)


def test_one_number_is_that_of_all_and_a_default_fills_up():
    assert values_by_weight("x", 2.0, NAMES) == [2.0] * 3
    given = {"bias": 5.0}
    assert values_by_weight("x", given, NAMES, 7.0) == [7.0, 5.0, 7.0]
    given["default"] = 3.0
    assert values_by_weight("x", given, NAMES, 7.0) == [3.0, 5.0, 3.0]
    with pytest.raises(ValueError, match="leaves out"):
        values_by_weight("x", {"bias": 5.0}, NAMES)
