"""How each public name is used with a value in the place of an argument."""

import csv
import functools
import pathlib

import keras
import numpy as np
from keras import layers
from keras import ops

from tests import arguments
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import OrthogonalRNNCell
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRUCell
from tf_spectral.layers import SpectralLSTMCell
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SpectralDescent

X = np.linspace(-1.0, 1.0, 64, dtype="float32")
EYE = np.eye(2, dtype="float32")
SKEW = np.array([[0.0, 0.5], [-0.5, 0.0]], "float32")
ROWS = np.array([[1.0, 0.5], [0.0, 1.0]], "float32")
CUBE = X[:8].reshape(2, 2, 2) + np.eye(2, dtype="float32")
ONES = np.ones((2,), "float32")
SEQUENCES = X[:12].reshape(2, 3, 2)
KERNELS = {
    "input_kernel": EYE,
    "recurrent_kernel": EYE,
    "output_kernel": EYE,
}


class Case:
    """How a public name is used.

    Args:
        base: Dict of the arguments that have no default, and of those that
            make a run cheap, or function that makes it.
        use: Function of what the call returned and of the value, gives what
            is to be finite. By default that is what the call returned.
        more: Classes or functions whose arguments `**kwargs` takes.
        names: Names of further arguments.
        of_tensors: Boolean, whether NaN may come of NaN.
        data: Names of arguments whose shapes the model checks, by Keras.
    """

    def __init__(
        self,
        base=None,
        use=None,
        more=(),
        names=(),
        of_tensors=False,
        data=(),
    ):
        self.data = data
        self.base, self.more, self.names = base or {}, more, names
        self.of_tensors = of_tensors
        self.use = use or (lambda result, value: result)

    def arguments(self, thing):
        names = arguments.arguments_of(thing, self.more)
        return names + [name for name in self.names if name not in names]

    def run(self, thing, argument, value):
        base = self.base() if callable(self.base) else self.base
        return self.use(thing(**{**base, argument: value}), value)


class WithoutData(Case):
    """A data set without its files: that they lack is said at the end."""

    def run(self, thing, argument, value):
        base = {"name": "x"} if thing.__name__ == "ucr" else {}
        try:
            thing(**{"folder": "none", **base, argument: value})
        except ValueError as error:
            if "nothing is downloaded" not in str(error):
                raise
        return []


def kept(thing, value):
    """The same from its configuration, or itself if Keras cannot keep it."""
    return thing if arguments.passed_on(value) else arguments.round_trip(thing)


def layer(base, shape, more=(), wrap=None, names=()):
    """A layer: built, called, and made again from its configuration."""
    x = X[: np.prod(shape)].reshape(shape)

    def use(layer, value):
        outer = wrap(layer) if wrap else layer
        results = [outer(x), outer(x, training=True)]
        copy = kept(layer, value)
        if copy is not layer:
            again = wrap(copy) if wrap else copy
            again(x)
            copy.set_weights(layer.get_weights())
            results.append(again(x))
        return results

    return Case(base, use, more, (*arguments.OF_KERAS, *names))


cell = functools.partial(layer, {"units": 2}, (2, 2, 2), wrap=layers.RNN)
recurrent = functools.partial(layer, {"units": 2}, (2, 2, 2))


def parametrization(base):
    def use(svd, value):
        copy = kept(svd, value)
        results = [svd.matrix(), copy.matrix()]
        copy.set_weights(svd.get_weights())
        return [*results, copy.matrix(), copy.sigma()]

    return Case(base, use, names=arguments.OF_KERAS)


def initializer(*call):
    return Case(
        use=lambda it, value: [it(*call), arguments.round_trip(it)(*call)]
    )


def optimizer(orthogonal, **base):
    """An optimizer: two steps, and made again from its configuration."""

    def use(it, value):
        constraint = Orthogonal() if orthogonal else None
        results = []
        for optimizer in (it, kept(it, value)):
            kernel = keras.Variable(EYE, name="kernel")
            bias = keras.Variable(ONES, name="bias")
            kernel.constraint = constraint
            optimizer.build([kernel, bias])
            for _ in range(2):
                gradients = [ops.convert_to_tensor(g) for g in (ROWS, ONES)]
                optimizer.apply(gradients, [kernel, bias])
            results += [kernel.value, bias.value]
        return results

    names = (
        "name",
        "weight_decay",
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "use_ema",
        "ema_momentum",
        "ema_overwrite_frequency",
        "loss_scale_factor",
        "gradient_accumulation_steps",
    )
    return Case(base, use, names=names)


@functools.cache
def dense_model():
    model = keras.Sequential(
        [layers.Input((2,)), layers.Dense(2, activation="softmax")]
    )
    model.compile(DSGD(), "categorical_crossentropy", run_eagerly=True)
    return model


@functools.cache
def recurrent_model():
    layer = SpectralRNN(2, annealed_radius=True, activation="tanh")
    head = layers.Dense(2, activation="softmax")
    model = keras.Sequential([layers.Input((3, 2)), layer, head])
    model.compile(
        SpectralDescent(lipschitz=1.0),
        keras.losses.CategoricalCrossentropy(),
        run_eagerly=True,
    )
    return model


@functools.cache
def measured_model():
    model = keras.Sequential(
        [layers.Input((2,)), layers.Dense(2, activation="softmax")]
    )
    loss = keras.losses.CategoricalCrossentropy()
    optimizer = SpectralDescent(lipschitz="bound")
    model.compile(optimizer, loss, run_eagerly=True)
    return model


def callback(base, model, x):
    def use(it, value):
        history = model().fit(
            x, EYE, batch_size=2, callbacks=[it], epochs=1, verbose=0
        )
        return history.history.get("loss", [])

    return Case(base, use, data=("x", "y"))


def figure(base):
    def use(figure, value):
        figure.savefig("figure.png", dpi=10)
        return []

    return Case(base, use)


def smoothness(it, value):
    return it.squared_bounds([EYE, ONES]), arguments.round_trip(it).offset


NODES = [
    {
        "kind": "input",
        "parents": [],
        "starts": [],
        "layer": "input",
        "bound": 1.0,
    },
]


def nothing(result, value):
    return []


def log():
    with open("log.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["epoch", "update", "loss", "updates/a", "a/sigma_min"]
            + ["a/sigma_max", "local_gradient_norm"]
        )
        rows.writerow([0, 0, 2.0, 1, 0.9, 1.1, 1.0])
        rows.writerow([1, 1, 1.0, 1, 0.9, 1.1, 0.5])
    return "log.csv"


def logs():
    return {"logs": {"it": log()}}


def characters_file():
    pathlib.Path("text.txt").write_text("the text of a book " * 20)
    return {"path": "text.txt"}


def matrices(*names, **base):
    return Case({**dict.fromkeys(names, EYE), **base}, of_tensors=True)


CASES = {
    "models.spectralize": Case(
        lambda: {"model": dense_model()}, lambda model, _: model(EYE)
    ),
    "models.despectralize": Case(
        lambda: {"model": spectral_model()}, lambda model, _: model(EYE)
    ),
    "layers.ModReLU": layer({}, (3, 2)),
    "layers.OrthogonalRNN": recurrent((OrthogonalRNNCell, layers.RNN)),
    "layers.OrthogonalRNNCell": cell((layers.SimpleRNNCell,)),
    "layers.SpectralConv1D": layer(
        {"filters": 2, "kernel_size": 2}, (2, 4, 2), (SpectralDense,)
    ),
    "layers.SpectralConv2D": layer(
        {"filters": 2, "kernel_size": 2}, (2, 4, 3, 2), (SpectralDense,)
    ),
    "layers.SpectralDense": layer({"units": 2}, (3, 2)),
    "layers.SpectralGRU": recurrent((SpectralGRUCell, layers.RNN)),
    "layers.SpectralGRUCell": cell(),
    "layers.SpectralLSTM": recurrent((SpectralLSTMCell, layers.RNN)),
    "layers.SpectralLSTMCell": cell(),
    "layers.SpectralRNN": recurrent((SpectralRNNCell, layers.RNN)),
    "layers.SpectralRNNCell": cell(),
    "parametrizations.SVD": parametrization({"shape": (2, 2)}),
    "parametrizations.Orthogonal": parametrization({"units": 2}),
    "constraints.Orthogonal": Case(
        use=lambda it, _: [it(CUBE), arguments.round_trip(it)(CUBE)]
    ),
    "initializers.BlockRotation": initializer((4, 4)),
    "initializers.Cayley": initializer((4, 4)),
    "initializers.Haar": initializer((4, 4)),
    "initializers.GaussianReflectors": initializer((2, 2), (2, 2)),
    "initializers.HaarReflectors": initializer((2, 2), (2, 2)),
    "initializers.IdentityReflectors": initializer((2, 2), (2, 2)),
    "initializers.RotationReflectors": initializer((2, 2), (2, 2)),
    "initializers.ReflectorInitializer": Case(
        use=lambda it, _: it.reflector_scale
    ),
    "initializers.get_orthogonal_initializer": Case(use=nothing),
    "initializers.get_reflector_initializer": Case(use=nothing),
    "optimizers.DSGD": optimizer(False),
    "optimizers.SRCD": optimizer(True),
    "optimizers.SRGD": optimizer(True),
    "optimizers.SpectralDescent": optimizer(False, lipschitz=1.0),
    "bounds.LayerwiseSmoothness": Case(
        lambda: dense_record().get_config(), smoothness
    ),
    "bounds.generalization_bound": Case(
        {
            **KERNELS,
            "input_bound": 1.0,
            "steps": 2,
            "margin": 1.0,
            "examples": 10,
        },
        lambda result, _: result["log_complexity"],
    ),
    "bounds.log_gradient_bound": Case({"recurrent_kernel": EYE, "steps": 2}),
    "bounds.rnn_lipschitz_constants": Case({**KERNELS, "x": SEQUENCES}),
    "bounds.rnn_loss_bound": Case(
        {
            **KERNELS,
            "x": SEQUENCES,
            "y": np.zeros((2, 3), "int32"),
            "steps": {"input": EYE},
        }
    ),
    "bounds.rnn_trust_region": Case(
        {**KERNELS, "x": SEQUENCES, "gradient_norm": 1.0}
    ),
    "losses.SumOfSquares": Case(
        use=lambda it, _: [it(EYE, ROWS), arguments.round_trip(it)(EYE, ROWS)]
    ),
    "regularizers.SingularValues": Case(
        use=lambda it, _: [it(ONES), arguments.round_trip(it)(ONES)]
    ),
    "metrics.Perplexity": Case(
        use=lambda it, _: [
            it(np.zeros((2,)), EYE / 2 + 0.25),
            arguments.round_trip(it)(np.zeros((2,)), EYE / 2 + 0.25),
        ]
    ),
    "callbacks.Backup": callback({"folder": "backup"}, dense_model, EYE),
    "callbacks.GeneralizationMonitor": callback(
        {"x": SEQUENCES, "y": EYE, "margin": 0.1}, recurrent_model, SEQUENCES
    ),
    "callbacks.GradientFlowMonitor": callback(
        {"x": SEQUENCES, "y": EYE}, recurrent_model, SEQUENCES
    ),
    "callbacks.LayerUpdateCounter": callback({}, dense_model, EYE),
    "callbacks.LipschitzEstimator": callback(
        {"x": EYE, "y": EYE}, measured_model, EYE
    ),
    "callbacks.OrthogonalAverages": Case(use=nothing),
    "callbacks.SigmaRadiusSchedule": callback(
        {"schedule": lambda epoch: 0.01}, recurrent_model, SEQUENCES
    ),
    "callbacks.SpectrumMonitor": callback({}, recurrent_model, SEQUENCES),
    "callbacks.gradient_norms_over_time": Case(
        lambda: {"model": recurrent_model(), "x": SEQUENCES, "y": EYE},
        data=("x", "y"),
    ),
    "export.export_saved_model": Case(
        lambda: {"model": dense_model(), "path": "served"}
    ),
    "datasets.adding": Case({"size": 2, "length": 4}),
    "datasets.adding_baseline": Case(),
    "datasets.characters": Case(characters_file, nothing),
    "datasets.copying": Case({"size": 2, "delay": 3}),
    "datasets.copying_baseline": Case({"delay": 3}),
    "datasets.images": Case({}, nothing),
    "datasets.multilabel": WithoutData(),
    "datasets.penn_treebank": WithoutData(),
    "datasets.pixel_images": Case({}, nothing),
    "datasets.stateful_batches": Case(
        {"tokens": np.arange(20), "batch_size": 2, "steps": 3}, nothing
    ),
    "datasets.stream": Case(
        lambda: {"make": adding_of_4, "batch_size": 2}, nothing
    ),
    "datasets.ucr": WithoutData(),
    "datasets.ucr_names": WithoutData(),
    "plotting.gradient_flow": figure({"norms": {"it": ONES}}),
    "plotting.layer_choices": figure(lambda: {"log": log()}),
    "plotting.learning_curves": figure(logs),
    "plotting.local_gradient": figure(logs),
    "plotting.partial_derivatives": figure({"values": {"it": X}}),
    "plotting.read_log": Case(lambda: {"path": log()}, nothing),
    "plotting.singular_values": figure(lambda: {"log": log()}),
    "plotting.update_curves": figure(logs),
    "linalg.householder.apply_householder": matrices("x", "vectors"),
    "linalg.householder.compact_wy": matrices("vectors"),
    "linalg.householder.householder_product": matrices("vectors"),
    "linalg.householder.reflectors_from_orthogonal": matrices("q"),
    "linalg.householder.svd_factors_from_matrix": matrices("kernel"),
    "linalg.factorization.reflectors_from_orthogonal": matrices("q"),
    "linalg.factorization.svd_factors_from_matrix": matrices("kernel"),
    "linalg.spectral.diagonal_plus_low_rank": matrices(
        "u_vectors", "v_vectors", sigma=ONES
    ),
    "linalg.spectral.spectral_matrix": matrices(
        "u_vectors", "v_vectors", sigma=ONES
    ),
    "linalg.spectral.times_diagonal_plus_low_rank": matrices(
        "x", "p", "q", sigma=ONES
    ),
    "linalg.spectral.solve_spectral": matrices(
        "y", "u_vectors", "v_vectors", sigma=ONES
    ),
    "linalg.spectral.truncated_sigma": Case({"sigma": ONES, "rank": 0}),
    "linalg.norms.as_matrix": matrices("x"),
    "linalg.norms.frobenius_norm": matrices("x"),
    "linalg.norms.spectral_norm_upper_bound": matrices("kernel"),
    "linalg.norms.induced_norm": matrices("kernel", norm=2),
    "linalg.norms.dual_norm": matrices("gradient", norm=2),
    "linalg.norms.duality_map": matrices("gradient", norm=2),
    "linalg.polar.polar_factor": matrices("x"),
    "linalg.polar.nuclear_norm": matrices("x"),
    "linalg.polar.polar_and_nuclear": matrices("x"),
    "linalg.norms.nuclear_norm_upper_bound": matrices("x"),
    "linalg.orthogonal.skew_gradient": matrices("r", "g"),
    "linalg.orthogonal.nearest_orthogonal": matrices("w"),
    "linalg.orthogonal.orthogonality_error": matrices("w"),
    "linalg.orthogonal.reorthogonalize": matrices("w"),
    "linalg.orthogonal.rounding_of": Case({"dtype": "float32"}),
    "linalg.orthogonal.seems_orthogonal": matrices("w"),
    "linalg.orthogonal.tangent_projection": matrices("w", "z"),
    "linalg.orthogonal.riemannian_gradient": matrices("w", "g"),
    "linalg.retractions.shortened": Case({"step": SKEW}),
    "linalg.retractions.retract_skew": Case({"r": EYE, "a": SKEW}),
    "linalg.retractions.retract": Case({"w": EYE, "tangent": SKEW}),
    "linalg.retractions.expm": Case({"a": SKEW}),
    "linalg.retractions.cayley": Case({"a": SKEW}),
    "linalg.givens.rotation_increments": matrices(
        "rows_j", "rows_l", angles=ONES
    ),
    "linalg.givens.rotate_rows": matrices("r", pairs=[[0, 1]], angles=ONES[:1]),
    "linalg.givens.rotate_block": matrices("r", partner=[1, 0], angles=ONES),
    "linalg.givens.partners": Case({"pairs": [[0, 1]], "d": 3}),
    "linalg.pairings.uniform_pair": Case({"d": 4, "seed": 0}),
    "linalg.pairings.random_pairs": Case({"d": 4, "seed": 0}),
    "linalg.pairings.round_count": Case({"d": 4}),
    "linalg.pairings.round_robin_pairs": Case({"d": 4, "round": 1}),
    "linalg.pairings.gauss_southwell_pair": Case({"s": SKEW}),
    "linalg.pairings.disjoint_pairs": Case({"scores": abs(SKEW)}),
}


@functools.cache
def spectral_model():
    return keras.Sequential([layers.Input((2,)), SpectralDense(2)])


@functools.cache
def dense_record():
    from tf_spectral.bounds import LayerwiseSmoothness

    return LayerwiseSmoothness.from_model(dense_model())


def adding_of_4(size, seed):
    from tf_spectral.datasets import adding

    return adding(size, 4, seed)
