"""Each example starts as a script and as a module, and explains itself."""

import pathlib
import runpy
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(p.stem for p in (ROOT / "keras_examples").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_explains_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(
            str(ROOT / "keras_examples" / f"{name}.py"), run_name="__main__"
        )
    assert end.value.code == 0
    text = capsys.readouterr().out
    # The docstring as it stands, with the command to start it.
    assert f"\n    python keras_examples/{name}.py" in text


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough"
)
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_to_start(name, tmp_path):
    for how in (
        ["-m", f"keras_examples.{name}"],
        [f"keras_examples/{name}.py"],
    ):
        done = subprocess.run(
            [sys.executable, *how, "--help"],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"python keras_examples/{name}.py" in done.stdout
