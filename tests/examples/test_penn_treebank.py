"""The language models, on a text of a few words."""

import argparse
import json
import sys

import keras
import numpy as np
import pytest

from keras_examples import penn_treebank

WORDS = "a b c d e f g h".split()


def write_text(folder):
    rng = np.random.default_rng(0)
    for part in ("train", "valid", "test"):
        text = " ".join(rng.choice(WORDS, size=400))
        (folder / f"ptb.{part}.txt").write_text(text + "\n")


def options(**changes):
    return argparse.Namespace(
        **{
            "reflectors": 32,
            "reflector_scale": 0.1,
            "sigma_center": None,
            "sigma_radius": 0.1,
            "activation": "tanh",
            "dropout": 0.0,
            "frequent": 5,
            "samples": 4,
            "seed": 0,
            "batch": 2,
            **changes,
        }
    )


@pytest.mark.parametrize("layers,default", [(1, 1.0), (2, 0.9)])
def test_the_center_and_the_activation_are_those_asked_for(layers, default):
    for given, center in ((None, default), (0.8, 0.8)):
        model = penn_treebank.LanguageModel(
            "spectral", layers, 32, np.ones(10), options(sigma_center=given)
        )
        for layer in model.recurrent:
            config = layer.get_config()
            assert config["sigma_center"] == center
            assert config["activation"] == "tanh"


@pytest.mark.parametrize("row", penn_treebank.TABLE_3)
def test_recurrent_weights_are_counted_as_in_the_paper(row):
    cell, layers, units, *_ = penn_treebank.TABLE_3[row]
    model = penn_treebank.LanguageModel(
        cell, layers, units, np.ones(9), options()
    )
    model.build((2, 3))
    count = {
        "simple": units**2,
        "lstm": 4 * units**2,
        # math.md 2.11, and the singular values.
        "spectral": 64 * units - (2 * 32**2 - 64) // 2 + units,
    }[cell]
    assert model.recurrent_weights() == layers * count


def test_layers_start_apart():
    model = penn_treebank.LanguageModel(
        "spectral", 2, 6, np.ones(9), options(reflectors=2)
    )
    model.build((2, 3))
    one, other = (
        keras.ops.convert_to_numpy(layer.matrix()) for layer in model.recurrent
    )
    assert np.abs(one - other).max() > 0.01


def test_the_loss_of_an_evaluation_is_that_of_the_exact_softmax():
    counts = np.arange(9, 0, -1)
    model = penn_treebank.LanguageModel(
        "simple", 1, 4, counts, options(frequent=2, samples=1)
    )
    model.build((2, 3))
    model.compile("sgd")
    x, y = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[1, 2, 3], [4, 5, 6]])
    loss = model.evaluate(
        x, y, 2, verbose=0, callbacks=[penn_treebank.ResetStates()]
    )
    model.recurrent[0].reset_states()
    logits = keras.ops.convert_to_numpy(model.softmax(model(x)))
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logits, y[..., None], -1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras on JAX keeps no states between batches that it evaluates",
)
def test_a_text_is_read_in_one_go():
    """States pass from a batch to the next, and start anew with a text."""

    def model_of(steps):
        keras.utils.set_random_seed(0)
        model = penn_treebank.LanguageModel(
            "simple", 1, 4, np.ones(9), options(frequent=9)
        )
        model.build((2, steps))
        model.compile("sgd")
        return model

    def loss(model, x):
        reset = [penn_treebank.ResetStates()]
        return model.evaluate(x, (x + 1) % 9, 2, verbose=0, callbacks=reset)

    x = np.arange(12).reshape(2, 6) % 9
    model = model_of(3)
    pieces = np.concatenate([x[:, :3], x[:, 3:]])
    in_pieces = [loss(model, pieces), loss(model, pieces)]
    whole = loss(model_of(6), x)
    np.testing.assert_allclose(in_pieces, [whole, whole], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["lstm_2", "spectral_1"])
def test_a_row_of_the_table(row, tmp_path, monkeypatch):
    write_text(tmp_path)
    monkeypatch.setitem(
        penn_treebank.TABLE_3,
        row,
        (*penn_treebank.TABLE_3[row][:2], 5, "1", 2.0, 3.0),
    )
    out = tmp_path / "out"
    arguments = f"--rows {row} --folder {tmp_path} --out {out} --epochs 2 "
    arguments += "--steps 10 --batch 2 --reflectors 2 --frequent 4 --samples 3"
    monkeypatch.setattr(sys, "argv", ["penn_treebank.py", *arguments.split()])
    penn_treebank.main()
    result = json.loads((out / row / "result.json").read_text())
    for part in ("train", "validation", "test"):
        assert 1.0 < result[part] < 2 * (len(WORDS) + 1)
    assert f"| {result['test']:.1f} | 3.0 |" in (out / "table.md").read_text()
    assert (out / "perplexity.png").exists()
