"""What is kept beside results: the command, tables, figures."""

import csv
import json
import pathlib
import sys
import time

import keras

import tf_spectral
from support.timing import processor
from tf_spectral import files

# Arguments that do not change a run that was begun, beside all lists: these say
# which runs there are.
NOT_SETTINGS = ("sets", "seeds", "iterations", "out", "export")


def run_all(plan, run, args, key):
    """Runs many short trainings, and goes on after a stop.

    Args:
        plan: List of tuples of the values of `key`.
        run: Function of these values and `args` that trains, and returns a
            dict that has them and what was found.
        args: Arguments of the example; rows go to `args.out / "runs.csv"`.
        key: Names of the values of a tuple.

    Returns:
        List of dicts of strings: all rows, those of earlier calls too.
    """
    write_command(args.out, args)
    path = args.out / "runs.csv"
    rows = read_rows(path)
    done = {tuple(row[name] for name in key) for row in rows}
    bar = keras.utils.Progbar(len(plan), unit_name="training")
    for values in plan:
        if tuple(map(str, values)) not in done:
            row = run(*values, args)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            files.sync(path)
            rows.append({name: str(value) for name, value in row.items()})
        bar.add(1)
    return rows


def read_rows(path):
    """The whole rows of `runs.csv`; half a row at its end is cut off."""
    if not path.exists():
        return []
    files.cut_table(path)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            sys.exit(
                f"{path}, line {number}: expected {len(reader.fieldnames)} "
                "values. Mend or remove the line."
            )
    return rows


def write_command(folder, args, fixed=False, without=()):
    """Keeps beside results what made them: command, versions, device.

    Stops the program if the folder holds results of another command: they
    are never written over.

    Args:
        folder: Path of a folder, made if there is none.
        args: Arguments of the example.
        fixed: Whether all arguments count. If not, lists and `NOT_SETTINGS`
            may be others when the command is given again.
        without: Names of further arguments that do not count.
    """
    folder = pathlib.Path(folder)
    path = folder / "command.json"
    settings = {
        key: str(value)
        for key, value in sorted(vars(args).items())
        if key not in ("out", *without)
        and (fixed or (key not in NOT_SETTINGS and not isinstance(value, list)))
    }
    if folder.exists() and not folder.is_dir():
        sys.exit(f"{folder} is a file. Give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    # What begins with a dot was being written when a process was killed.
    results = [f.name for f in folder.iterdir() if not f.name.startswith(".")]
    if set(results) - {path.name} and settings_of(path) != settings:
        sys.exit(
            f"{folder} holds {sorted(results)}, which a command with other "
            "settings made. Give another --out, or remove it."
        )
    record = {
        "command": "python " + " ".join(sys.argv),
        "settings": settings,
        "date": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "backend_version": backend_version(),
        "tf_spectral": tf_spectral.__version__,
        "processor": processor(),
    }
    write_json(path, record)


def settings_of(path):
    """What a `command.json` says of its run; `None` if it says nothing."""
    try:
        return json.loads(path.read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_json(path, value):
    """Writes a file of JSON, whole or not at all."""
    files.write_text(path, json.dumps(value, indent=2) + "\n")


def save_figure(figure, path):
    """Writes a figure, whole or not at all."""
    with files.replaced(path) as beside:
        figure.savefig(beside, dpi=150)


def backend_version():
    """The version of the library that Keras computes with."""
    return __import__(keras.backend.backend()).__version__
