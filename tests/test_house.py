"""Rules of the house: imports point downwards, public names are explained."""

import ast
import pathlib

import keras

import tf_spectral

ROOT = pathlib.Path(tf_spectral.__file__).parent
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text())
    for path in sorted(ROOT.rglob("*.py"))
}

# A module imports only from rows above its own (design: architecture).
ROWS = [
    {"version", "checks", "files", "kernel_names"},
    {"backend"},
    {"activations"},
    {
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
    {"callbacks", "export", "models"},
]


def room(parts):
    return next(
        row for row, names in enumerate(ROWS) if parts[0] in names
    ), parts[0]


def imported_rooms(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "tf_spectral":
                yield room(parts[1:])


def test_imports_point_downwards():
    wrong = []
    for path, tree in TREES.items():
        parts = path.with_suffix("").parts
        if parts == ("__init__",):
            continue
        row, name = room(parts)
        wrong += [
            f"{path} imports {other}"
            for other_row, other in imported_rooms(tree)
            if other != name and other_row >= row
        ]
    assert not wrong


# They are TensorFlow's by nature: files of `tf.data`, servers of SavedModels.
OF_TENSORFLOW = {"datasets", "export"}
BACKENDS = {"tensorflow", "jax", "torch"}


def imported(node):
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.split(".")[0]}
    return set()


def test_no_backend_branch_outside_its_room():
    wrong = []
    for path, tree in TREES.items():
        if path.parts[0] in OF_TENSORFLOW | {"backend"}:
            continue
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and (
                isinstance(node.func, ast.Attribute)
                and node.func.attr == "backend"
            )
            if called or imported(node) & BACKENDS:
                wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_no_private_name_of_keras_outside_its_file():
    """A private name that no file of ours defines is somebody else's."""
    home = pathlib.Path("backend/keras_internals.py")
    ours, used = {"_asdict", "_fields", "_replace"}, {}
    for path, tree in TREES.items():
        if path == home:
            continue
        for node in ast.walk(tree):
            ours |= defined(node)
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                used[node.attr] = f"{path}:{node.lineno} {node.attr}"
    theirs = {
        name
        for kind in (keras.Model, keras.layers.RNN, keras.optimizers.Adam)
        for name in dir(kind)
        if is_private(name)
    }
    wrong = [place for name, place in used.items() if name not in ours]
    assert not wrong
    assert not ours & theirs


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def defined(node):
    """The names that a statement defines, or an attribute it sets."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Attribute, ast.Name)):
        if isinstance(node.ctx, ast.Store):
            return {node.attr if isinstance(node, ast.Attribute) else node.id}
    return set()


def test_every_public_name_has_a_docstring():
    without = [path for path, tree in TREES.items() if not has_text(tree)]
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                if not node.name.startswith("_") and not has_text(node):
                    without.append(f"{path}: {node.name}")
    assert not without


def has_text(node):
    return bool(ast.get_docstring(node))


def test_no_operation_that_fails_somewhere():
    """`triu`, `diag`: Keras 3.8 in graphs; `matmul`: float64 on PyTorch."""
    wrong = []
    for path, tree in TREES.items():
        calls = {
            node.func.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "ops"
        }
        forbidden = calls & {"triu", "tril", "diag", "matmul"}
        # Of sparse tensors, of which PyTorch has none.
        if str(path) == "layers/spectral_dense.py":
            forbidden -= {"matmul"}
        wrong += [f"{path} calls ops.{name}" for name in sorted(forbidden)]
    assert not wrong
