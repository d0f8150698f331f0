"""The wheel, in an environment of its own, runs what README shows."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests.test_docs import blocks

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command, **options):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        **options,
    )


def test_the_wheel_runs_the_example_of_the_readme(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wheels = tmp_path / "wheels"
    try:
        run(*pip, "wheel", "--no-deps", "-w", wheels, ROOT)
        (wheel,) = wheels.iterdir()
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.split("/")[0] for name in archive.namelist()}
        assert "tf_spectral" in tops
        assert all(top.startswith("tf_spectral") for top in tops)
        run(sys.executable, "-m", "venv", tmp_path / "venv")
        python = tmp_path / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", f"{wheel}[examples]")
    except subprocess.CalledProcessError as error:
        if "onnection" in error.stderr or "No matching" in error.stderr:
            pytest.skip("no package index can be reached")
        raise
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks(ROOT / "README.md")[:2]))
    run(python, script, cwd=tmp_path)
    assert (tmp_path / "digits.keras").exists()
