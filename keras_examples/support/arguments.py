"""The command line of an example."""

import argparse
import pathlib


def parser(description, out=None, seed=True, jit=False):
    """A parser with the options that most examples have.

    Args:
        description: The docstring of the example, shown as it stands.
        out: String, the default of `--out`; `<data>` stands for the value of
            `--data`. `None` for an example that writes nothing.
        seed: Whether there is `--seed`.
        jit: Whether there is `--jit`.

    Returns:
        `argparse.ArgumentParser`.
    """
    made = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if seed:
        made.add_argument("--seed", type=int, default=0)
    if jit:
        made.add_argument("--jit", action="store_true", help="compile with XLA")
    if out is not None:
        made.add_argument("--out", type=pathlib.Path, help=f"default: {out}")
        made.set_defaults(default_out=out)
    return made


def parse(parser, defaults=None):
    """Reads the command line, and fills in what depends on other options.

    Args:
        parser: What `parser` made.
        defaults: Dict from a value of `--data` to a dict of the values of
            options that were not given, or `None`.

    Returns:
        `argparse.Namespace`.
    """
    args = parser.parse_args()
    for name, value in (
        (defaults or {}).get(getattr(args, "data", None), {}).items()
    ):
        if getattr(args, name) is None:
            setattr(args, name, value)
    out = vars(args).pop("default_out", None)
    if out is not None and args.out is None:
        args.out = pathlib.Path(
            out.replace("<data>", getattr(args, "data", ""))
        )
    return args
