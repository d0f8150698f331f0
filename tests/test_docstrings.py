"""The examples of docstrings run, each by itself, and leave nothing behind."""

import ast
import doctest
import importlib
import pathlib
import re
import tempfile

import keras
import pytest

import tf_spectral

ROOT = pathlib.Path(tf_spectral.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
ROOMS = sorted({p.relative_to(ROOT).parts[0] for p in ROOT.rglob("*.py")})
ONLY_TENSORFLOW = {"export_saved_model": "SavedModels are TensorFlow's"}


def examples(path):
    """The examples of a file, a `doctest.DocTest` for each docstring."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)):
            name = getattr(node, "name", path.stem)
            test = doctest.DocTestParser().get_doctest(
                ast.get_docstring(node) or "", {}, name, str(path), 0
            )
            if test.examples:
                yield test


@pytest.mark.parametrize("room", ROOMS)
def test_examples_run_and_leave_nothing_behind(room, tmp_path, monkeypatch):
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.delenv("TF_SPECTRAL_DATA", raising=False)
    path = ROOT / room
    wrong = []
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for test in examples(file):
            if keras.backend.backend() != "tensorflow":
                if test.name in ONLY_TENSORFLOW:
                    continue
            keras.utils.clear_session(free_memory=False)
            doctest.DocTestRunner(optionflags=FLAGS).run(test, out=wrong.append)
            # TensorFlow's own files go when the process ends.
            left = [*here.iterdir(), *temporary.glob("[!_]*")]
            if left:
                wrong.append(f"{file}, {test.name} left {left}")
                break
    assert not wrong, "\n".join(wrong)


def test_an_example_that_fails_or_leaves_a_file_is_found(tmp_path, monkeypatch):
    room = tmp_path / "room.py"
    room.write_text('"""A room.\n\n>>> 1 + 1\n3\n>>> _ = open("it", "w")\n"""')
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    with pytest.raises(AssertionError, match=r"(?s)Got:\s+2.*room left"):
        test_examples_run_and_leave_nothing_behind(
            "room.py", tmp_path, monkeypatch
        )


def public_names():
    """What the reference in docs/api.md shows, as pairs of name and object."""
    text = (ROOT.parent / "docs" / "api.md").read_text()
    for module in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        module = importlib.import_module(module)
        for name, value in vars(module).items():
            is_own = getattr(value, "__module__", "") == module.__name__
            is_own = name in getattr(module, "__all__", [name] * is_own)
            if callable(value) and is_own and not name.startswith("_"):
                yield f"{module.__name__}.{name}", value


def test_every_public_name_has_an_example():
    names = dict(public_names())
    assert len(names) > 80
    assert not [
        name for name, value in names.items() if ">>> " not in value.__doc__
    ]
