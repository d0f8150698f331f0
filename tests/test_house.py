"""Rules of the house: imports point downwards, files stay small."""

import ast
import pathlib

import pytest

import tf_spectral

ROOT = pathlib.Path(tf_spectral.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A module imports only from rows above its own (design: architecture).
ROWS = [
    {
        "version",
        "linalg",
        "losses",
        "metrics",
        "datasets",
        "plotting",
        "regularizers",
    },
    {"bounds", "initializers"},
    {"parametrizations", "constraints"},
    {"layers"},
    {"optimizers"},
    {"callbacks", "export", "spectralize"},
]


def room(parts):
    return next(
        row for row, names in enumerate(ROWS) if parts[0] in names
    ), parts[0]


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "tf_spectral":
                yield room(parts[1:])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__init__",):
        return
    row, name = room(parts)
    for other_row, other in imported_rooms(path):
        assert other == name or other_row < row, f"{path} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_operation_that_fails_somewhere(path):
    """`triu`, `diag`: Keras 3.8 in graphs; `matmul`: float64 on PyTorch."""
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "ops"
    }
    assert not calls & {"triu", "tril", "diag", "matmul"}
