"""Times callables side by side, so that a slow minute slows them all."""

import os
import pathlib
import platform
import statistics
import time

import keras


def interleaved_medians(callables, repeats=7, warmup=2):
    """Median seconds of each callable, all timed in turn `repeats` times.

    Args:
        callables: Dict of functions without arguments; each must not return
            before its work is done.
        repeats: Integer, at least 5. Defaults to 7.
        warmup: Integer, untimed calls of each. Defaults to 2.

    Returns:
        Dict of medians in seconds.
    """
    if repeats < 5:
        raise ValueError(
            f"Argument `repeats` must be at least 5. Received: {repeats}"
        )
    for function in callables.values():
        for _ in range(warmup):
            function()
    seconds = {name: [] for name in callables}
    for _ in range(repeats):
        for name, function in callables.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def machine():
    """One line on what the numbers were measured with."""
    backend = keras.backend.backend()
    version = __import__(backend).__version__
    cpu = platform.processor()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return (
        f"{_accelerator(backend)}; {cpu}, {os.cpu_count()} cores; Keras "
        f"{keras.__version__}, {backend} {version}, Python "
        f"{platform.python_version()}; {time.strftime('%Y-%m-%d')}"
    )


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
