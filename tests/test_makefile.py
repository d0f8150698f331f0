"""`make demo` and `make test` find a Python, or say what is missing."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="there is no make")


def make(tmp_path, *arguments):
    command = [MAKE, f"VENV={tmp_path}/venv", *arguments]
    environment = {"PATH": str(tmp_path)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def put(tmp_path, name, line):
    (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
    (tmp_path / name).chmod(0o755)


def test_the_first_python_that_runs_is_taken(tmp_path):
    put(tmp_path, "python3.11", "echo no such command >&2; exit 127")
    put(tmp_path, "python3.12", "exit 1")
    put(tmp_path, "python3", f'exec "{sys.executable}" "$@"')
    done = make(tmp_path, "--dry-run", "demo")
    assert done.returncode == 0
    assert f"\npython3 -m venv {tmp_path}/venv\n" in done.stdout


def test_without_a_python_make_says_what_it_needs(tmp_path):
    put(tmp_path, "python3.11", "exit 127")
    done = make(tmp_path, "test")
    assert done.returncode
    assert "Expected Python 3.11, 3.12 or 3.13" in done.stdout
    assert "PYTHON=/path/to/python" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_a_python_of_ones_own(tmp_path):
    done = make(tmp_path, "--dry-run", "PYTHON=/opt/python", "test")
    assert f"\n/opt/python -m venv {tmp_path}/venv\n" in done.stdout
