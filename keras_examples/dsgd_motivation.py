"""Where no fixed step size is right: the two small examples of DSGD's paper.

    python keras_examples/dsgd_motivation.py

1. `f(x, y) = x^2 y^2 / 4`, a product of functions with bounded curvature
   (Flynn, 2017, example 3.12). Its gradient has no Lipschitz constant: from
   `x = y > 2 / sqrt(step)` gradient descent diverges, whatever the step.
2. The network of section 2 with two hidden units and one example,
   `E = (s(w3 s(w1) + w4 s(w2)) - target)^2`, whose second derivatives are
   unbounded along `w = (1, 1, e, -e + ...)` (proposition 2.1).

Each starting point is tried with every step size of the paper's grid, and with
DSGD, which has none. For the paper's target of the network, 0, all partial
steps lower the output, so that no step is too long: gradient descent goes down
with every step size, and where it stalls DSGD stalls, too. With the target 1/2
a step can be too long, and then the output unit is saturated for good.
"""

import keras
import numpy as np

from support import arguments
from support import records
from tf_spectral import plotting
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD

RATES = (0.001, 0.01, 0.1, 1.0, 10.0)
NORMS = (1, 2, "inf")
OTHER_NORMS = ("DSGD, q = 1", "DSGD, q = inf")
PRODUCT_STARTS = {
    "x = y = 0.1": (0.1, 0.1),
    "x = y = 1": (1.0, 1.0),
    "x = y = 30": (30.0, 30.0),
    "x = y = 100": (100.0, 100.0),
    "x = 1000, y = 0.001": (1000.0, 0.001),
}
HUGE, SMALL, ROUNDING = 1e12, 1e-6, 1e-16


def product_losses(start, step, steps):
    """The values of x^2 y^2 / 4 on the way."""
    x, y = start
    losses = [x * x * y * y / 4]
    for _ in range(steps):
        x, y = step(x, y)
        losses.append(x * x * y * y / 4)
        if not losses[-1] < HUGE:
            break
    return losses


def gradient_step(rate):
    return lambda x, y: (x - rate * x * y * y / 2, y - rate * x * x * y / 2)


def duality_step(x, y):
    """DSGD in the norm sqrt(1 + h(y)) |dx| + sqrt(1 + g(x)) |dy|."""
    bound_x, bound_y = 1 + y * y / 2, 1 + x * x / 2
    slope_x, slope_y = x * y * y / 2, x * x * y / 2
    if abs(slope_x) / bound_x**0.5 >= abs(slope_y) / bound_y**0.5:
        return x - slope_x / bound_x, y
    return x, y - slope_y / bound_y


def line_of_proposition(e, y=-1.0):
    """Weights whose output unit gets `y`, however large `e` is."""
    s = 1 / (1 + np.exp(-1.0))
    return 1.0, 1.0, e, (y - e * s) / s


def network_starts(target):
    if target == 0.0:
        return {
            "w3 = 10": line_of_proposition(10.0),
            "w3 = 3000": line_of_proposition(3000.0),
            "saturated": (3.0, 4.0, 33.0, 24.0),
        }
    return {
        "w3 = 10": line_of_proposition(10.0),
        "w3 = 100": line_of_proposition(100.0),
        "w3 = 3000": line_of_proposition(3000.0),
    }


class Network:
    """The network of section 2 with an optimizer."""

    def __init__(self, rate=None, norm=None):
        self.model = keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(2, "sigmoid", use_bias=False),
                keras.layers.Dense(1, "sigmoid", use_bias=False),
            ]
        )
        if norm is None:
            optimizer = keras.optimizers.SGD(rate)
        else:
            smoothness = LayerwiseSmoothness.from_model(
                self.model,
                norm,
                input_norm=1.0,
                residual=1.0,
                loss=SumOfSquares(),
            )
            optimizer = DSGD(
                norm=norm, smoothness=smoothness, polar_accuracy="exact"
            )
        self.model.compile(optimizer, SumOfSquares())

    def losses(self, start, target, steps):
        """The loss before each step and after the last, at one example."""
        w = np.array(start)
        self.model.set_weights([w[None, :2], w[2:, None]])
        x, y = np.array([[1.0]]), np.array([[target]])
        return [float(self.model.train_on_batch(x, y)) for _ in range(steps)]


def verdict(losses):
    """What became of a run, in a word and a number."""
    last = losses[-1]
    if not last < HUGE:
        return f"diverges ({len(losses) - 1})"
    if last < SMALL:
        return f"arrives {last:.0e}"
    if last > 0.99 * losses[len(losses) // 2]:
        return f"stalls {last:.1e}"
    return f"falls {last:.1e}"


def print_table(title, table):
    """`table`: dict of start -> dict of method -> losses."""
    print(f"\n{title}")
    methods = list(next(iter(table.values())))
    print(f"{'':<22}" + "".join(f"{method:>17}" for method in methods))
    for start, runs in table.items():
        cells = "".join(f"{verdict(runs[m]):>17}" for m in methods)
        print(f"{start:<22}{cells}")


def draw(title, runs, path, steps):
    """Draws the first steps, down to a loss that is zero to rounding."""
    logs = {}
    for method, losses in runs.items():
        losses = np.array(losses[:steps])
        shown = losses >= ROUNDING
        updates = np.arange(1, len(losses) + 1)
        logs[method] = {"update": updates[shown], "loss": losses[shown]}
    dashed = [method for method in runs if not method.startswith("DSGD")]
    figure = plotting.update_curves(
        logs, log_scale=True, title=title, dashed=dashed
    )
    records.save_figure(figure, path)


def main():
    parser = arguments.parser(
        __doc__, out="results/dsgd_motivation", seed=False
    )
    parser.add_argument("--steps", type=int, default=200)
    args = arguments.parse(parser)
    records.write_command(args.out, args, fixed=True)
    keras.config.set_floatx("float64")
    print(
        f"After {args.steps} steps. diverges (k): beyond {HUGE:.0e} at step k; "
        f"arrives: loss below {SMALL:.0e};\nstalls: less than 1 % in the "
        "second half; falls: none of these."
    )

    steppers = {f"step {rate:g}": gradient_step(rate) for rate in RATES}
    steppers["DSGD"] = duality_step
    table = {
        name: {
            method: product_losses(start, step, args.steps)
            for method, step in steppers.items()
        }
        for name, start in PRODUCT_STARTS.items()
    }
    print_table("x^2 y^2 / 4", table)
    for name, file in (("x = y = 1", "near"), ("x = y = 100", "far")):
        title = f"x² y² / 4 from {name}"
        draw(title, table[name], args.out / f"product_{file}.png", 40)

    networks = {f"step {rate:g}": Network(rate=rate) for rate in RATES}
    networks |= {f"DSGD, q = {q}": Network(norm=q) for q in NORMS}
    for target, file in ((0.0, "0"), (0.5, "half")):
        table = {
            name: {
                method: network.losses(start, target, args.steps)
                for method, network in networks.items()
            }
            for name, start in network_starts(target).items()
        }
        print_table(f"network of section 2, target {target:g}", table)
        title = f"Network of section 2, target {target:g}, w3 = 3000"
        path = args.out / f"network_target_{file}.png"
        # The three norms agree to within the thickness of a line.
        runs = {
            method: losses
            for method, losses in table["w3 = 3000"].items()
            if method not in OTHER_NORMS
        }
        draw(title, runs, path, args.steps)
    print(f"\nfigures: {args.out}/*.png")


if __name__ == "__main__":
    main()
