"""Times functions side by side, so that a slow minute slows them all."""

import os
import pathlib
import platform
import statistics
import time

import keras


def median_seconds(functions, repeats=7, calls=1, warmup=2):
    """Median seconds of a call of each function, all timed in turn.

    Args:
        functions: Dict of functions without arguments; each must not return
            before its work is done.
        repeats: Integer, at least 5, how many turns are timed. Defaults to 7.
        calls: Positive integer, calls of a function in a turn. Defaults to 1.
        warmup: Integer, untimed calls of each before. Defaults to 2.

    Returns:
        Dict of medians in seconds.
    """
    if repeats < 5:
        raise ValueError(
            f"Argument `repeats` must be at least 5. Received: {repeats}"
        )
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls):
                function()
            seconds[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(s) for name, s in seconds.items()}


def training_step(model, x, y):
    """A function that takes one training step on a batch."""
    return lambda: model.train_on_batch(x, y)


def machine():
    """One line on what the numbers were measured with."""
    backend = keras.backend.backend()
    version = __import__(backend).__version__
    return (
        f"{_accelerator(backend)}; {processor()}; Keras "
        f"{keras.__version__}, {backend} {version}, Python "
        f"{platform.python_version()}; {time.strftime('%Y-%m-%d')}"
    )


def processor():
    """The processor's name and the number of its cores."""
    name = platform.processor() or "unknown"
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def _accelerator(backend):
    if backend == "tensorflow":
        import tensorflow as tf

        names = [
            device.name for device in tf.config.list_physical_devices("GPU")
        ]
    elif backend == "jax":
        import jax

        names = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    else:
        import torch

        count = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(i) for i in range(count)]
    return ", ".join(names) or "no accelerator"
