"""Recurrent networks on fresh sequences of one task: trained, compared."""

import keras

from support import cells
from support import fitting
from support import records
from tf_spectral import datasets
from tf_spectral import plotting


def train_cells(
    args,
    build_model,
    make,
    validation_size,
    callbacks=lambda cell, args: [],
    **fit_options,
):
    """Trains a model for each of `args.cell` on fresh sequences of one task.

    Args:
        args: Arguments of the example, with `cell`, `seed`, `batch`,
            `iterations` and `out`.
        build_model: Function of the name of a cell and `args` that gives a
            compiled model.
        make: Function `make(size, seed=...)` that draws sequences.
        validation_size: Integer, how many sequences to validate on.
        callbacks: Function of the name of a cell and `args` that gives a
            list of Keras callbacks. Defaults to none.
        **fit_options: Passed on to `model.fit`.

    Returns:
        Dict from the name of each cell to the path of its CSV log.
    """

    def make_data(first):
        return datasets.stream(
            make, args.batch, seed=args.seed, first_batch=first
        )

    logs = {}
    records.write_command(args.out, args)
    for cell in args.cell:
        keras.utils.set_random_seed(args.seed)
        records.write_command(args.out / cell, args)
        model = build_model(cell, args)
        model.summary()
        logs[cell] = fitting.fit_stream(
            model,
            make_data,
            args.iterations,
            args.out / cell,
            callbacks=callbacks(cell, args),
            validation_data=make(validation_size, seed=args.seed + 10**6),
            **fit_options,
        )
    return logs


def report(logs, baseline, quantity, path):
    """Prints the last errors and draws all curves beside the baseline."""
    print(f"\n{quantity} without memory: {baseline:.6f}")
    curves = {}
    for cell, log in logs.items():
        columns = plotting.read_log(log)
        print(
            f"{cell:>12}: last {fitting.STEPS} batches "
            f"{columns['loss'][-1]:.6f}, "
            f"validation {columns['val_loss'][-1]:.6f}"
        )
        columns["update"] = fitting.STEPS * (columns["epoch"] + 1)
        curves[cells.NAMES[cell]] = columns
    figure = plotting.learning_curves(
        curves,
        baseline=baseline,
        log_scale=True,
        title=f"{quantity} over training",
        ylabel=quantity,
    )
    records.save_figure(figure, path)
    print(f"figure: {path}")
