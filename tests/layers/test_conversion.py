"""from_stock and to_stock: one rule for every layer, tested on each."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import skip_what_keras_cannot
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import EXACT
from tests.layers.contract import arrays_of
from tests.layers.contract import normal
from tests.layers.contract import shaken
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import ModReLU
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

UNITS, FEATURES = 4, 3


class Contender(NamedTuple):
    """A layer that is converted, of wide bounds, and its inputs' shape."""

    kind: type
    shape: tuple
    make: Callable

    def inputs(self, batch=2):
        return normal(batch, *self.shape)

    def built(self, **options):
        """A layer whose weights all differ from where they start."""
        layer = self.make(**options)
        layer.build((None, *self.shape))
        return shaken(layer)

    def stock(self):
        """A stock layer, its weights where Keras starts them but the bias."""
        config = self.built().to_stock().get_config()
        kind = "recurrent" if self.is_recurrent else "kernel"
        stock = self.kind.stock.from_config(
            {**config, f"{kind}_initializer": "glorot_uniform"}
        )
        stock.build((None, *self.shape))
        if owner_of(stock).bias is not None:
            shape = owner_of(stock).bias.shape
            owner_of(stock).bias.assign(normal(*shape, seed=5))
        return stock

    @property
    def is_recurrent(self):
        return issubclass(self.kind, keras.layers.RNN)


def contender(kind, shape, *arguments, **fixed):
    if kind is not OrthogonalRNN:
        fixed = {"sigma_center": 0.8, "sigma_radius": 0.3, **fixed}
    return Contender(
        kind, shape, lambda **o: kind(*arguments, **{**fixed, **o})
    )


def of_sequences(kind, **fixed):
    return contender(kind, (5, FEATURES), UNITS, **fixed)


SPECTRAL = {
    "dense": contender(SpectralDense, (3,), 5, activation="relu"),
    "low_rank": contender(
        SpectralDense, (2, 6), 5, form="low_rank", reflectors=(1, 2)
    ),
    "scalar": contender(SpectralDense, (1,), 1),
    "conv1d": contender(
        SpectralConv1D, (6, 3), 4, 2, padding="causal", dilation_rate=2
    ),
    "conv2d": contender(
        SpectralConv2D, (5, 4, 2), 3, (2, 3), strides=(2, 1), activation="tanh"
    ),
    "grouped": contender(
        SpectralConv2D, (4, 4, 4), 4, 2, padding="same", groups=2, reflectors=3
    ),
    "rnn": of_sequences(SpectralRNN, activation="softsign"),
    "lstm": of_sequences(SpectralLSTM, reflectors=2),
    "gru": of_sequences(SpectralGRU),
    "gru_before": of_sequences(SpectralGRU, reset_after=False),
}
ORTHOGONAL = of_sequences(OrthogonalRNN, activation="tanh")
ALL = {**SPECTRAL, "orthogonal": ORTHOGONAL}
RECURRENT = [name for name in ALL if ALL[name].is_recurrent]
GATED = [name for name in RECURRENT if hasattr(ALL[name].kind, "cell_class")]


@pytest.fixture(params=ALL)
def any_layer(request):
    return ALL[request.param]


@pytest.fixture(params=SPECTRAL)
def spectral(request):
    return SPECTRAL[request.param]


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def owner_of(layer):
    return getattr(layer, "cell", layer)


def decomposed(stock):
    """The weight that a spectral layer decomposes."""
    if hasattr(stock, "cell"):
        return stock.cell.recurrent_kernel
    return stock.kernel


def assert_same_outputs(layer, other, x, tolerance):
    pairs = zip(arrays_of(layer(x)), arrays_of(other(x)), strict=True)
    for output, expected in pairs:
        assert_close(output, expected, tolerance)


def test_there_and_back(any_layer):
    """Ours, the stock layer and ours again compute the same."""
    if any_layer.kind is OrthogonalRNN:
        layer = any_layer.make(name="mine")
        layer.build((None, *any_layer.shape))
    else:
        layer = any_layer.built(name="mine")
    x = any_layer.inputs()
    stock = layer.to_stock()
    assert type(stock) is layer.stock and stock.name == "mine"
    assert_same_outputs(stock, layer, x, EXACT)
    kernel = array(decomposed(stock))
    assert_close(kernel, array(layer.matrix()).reshape(kernel.shape), EXACT)
    again = type(layer).from_stock(stock)
    assert type(again) is type(layer) and again.name == "mine"
    assert_same_outputs(again, stock, x, 1e-5)
    assert layer.conversion_residual is None
    if any_layer.kind is OrthogonalRNN:
        return
    assert again.conversion_residual < 1e-5
    low, high = np.sort(array(layer.singular_values()).ravel())[[0, -1]]
    center, radius = (
        owner_of(again).get_config()[name]
        for name in ("sigma_center", "sigma_radius")
    )
    assert center - radius < low and center + radius > high


@pytest.mark.parametrize("sigma_mode", ["sigmoid", "clip", "free"])
@pytest.mark.costly(keep=12)
def test_a_fresh_stock_layer(spectral, sigma_mode):
    """Glorot's kernel has singular values from almost 0 to about 2."""
    stock, x = spectral.stock(), spectral.inputs()
    before = [array(w).copy() for w in stock.weights]
    layer = spectral.kind.from_stock(stock, sigma_mode=sigma_mode)
    assert_same_outputs(layer, stock, x, 1e-5)
    assert_same_outputs(layer.to_stock(), stock, x, 1e-5)
    for weight, value in zip(stock.weights, before, strict=True):
        assert np.array_equal(array(weight), value)
    # Not the same memory: what one becomes the other does not.
    shaken(layer)
    for weight, value in zip(stock.weights, before, strict=True):
        assert np.array_equal(array(weight), value)


EVERYTHING = {
    "use_bias": True,
    "bias_initializer": "ones",
    "bias_regularizer": "l2",
    "bias_constraint": "non_neg",
    "kernel_regularizer": "l1",
    "activity_regularizer": "l1",
    "trainable": False,
    "dtype": "mixed_bfloat16",
    "name": "mine",
}
OF_RECURRENT = {
    "kernel_initializer": "he_normal",
    "kernel_constraint": "max_norm",
    "recurrent_regularizer": "l2",
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "zero_output_for_mask": True,
    "unroll": True,
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "seed": 3,
}
OF_GATED = {
    "activation": "softsign",
    "recurrent_activation": "hard_sigmoid",
    "use_cudnn": False,
}


def test_every_option_goes_over(any_layer):
    """There and back: only the decomposed weight's initializer is lost."""
    options = dict(EVERYTHING)
    if any_layer.is_recurrent:
        options |= OF_RECURRENT
    gated = hasattr(any_layer.kind, "cell_class")
    if gated:
        options |= OF_GATED
    layer = any_layer.make(**options, autocast=False)
    layer.build((None, *any_layer.shape))
    stock = layer.to_stock()
    again = any_layer.kind.from_stock(stock)
    back = again.to_stock()
    config = layer.get_config()
    shared = config.keys() - set(layer.own_options)
    for name in shared - {"recurrent_initializer"}:
        assert again.get_config()[name] == config[name]
        # Configurations of Keras' own layers leave these out.
        if name not in ("use_cudnn", "seed"):
            assert stock.get_config()[name] == config[name]
    assert back.get_config() == stock.get_config()
    for other in (layer, stock, again, back):
        assert not other.autocast
        assert not other.trainable and not other.trainable_variables
        assert other.activity_regularizer is not None
        if gated:
            assert other.use_cudnn is False


@pytest.mark.parametrize("name", RECURRENT)
def test_stateful_layers_convert(name):
    kind = ALL[name].kind
    layer = ALL[name].make(stateful=True)
    layer.build((2, None, FEATURES))
    stock = layer.to_stock()
    again = kind.from_stock(stock)
    x = normal(2, 5, FEATURES)
    for _ in range(2):
        expected = array(layer(x))
        assert_close(array(stock(x)), expected, EXACT)
        assert_close(array(again(x)), expected, 1e-5)
    assert again.to_stock().stateful


def test_without_bias(any_layer):
    layer = any_layer.built(use_bias=False)
    skip_what_keras_cannot(layer)
    if any_layer.kind is OrthogonalRNN:
        layer.cell.recurrent_kernel.assign(np.eye(UNITS))
    stock, x = layer.to_stock(), any_layer.inputs()
    assert not stock.use_bias
    again = any_layer.kind.from_stock(stock)
    assert not again.use_bias
    assert_same_outputs(stock, layer, x, EXACT)
    assert_same_outputs(again, layer, x, 1e-5)


def test_what_was_set_later_goes_over(any_layer):
    """An activation of `None` is the identity; `use_bias` may come too late."""
    layer = any_layer.built(use_bias=True)
    skip_what_keras_cannot(layer)
    if any_layer.kind is OrthogonalRNN:
        layer.cell.recurrent_kernel.assign(np.eye(UNITS))
    x = any_layer.inputs()
    stock = layer.to_stock()
    gated = hasattr(any_layer.kind, "cell_class")
    for one in (layer, stock):
        owner = owner_of(one)
        owner.use_bias = False
        if not gated:
            owner.activation = None
        elif BACKEND == "torch":
            # The fused loop of Keras' own layers takes the bias all the same.
            one.use_cudnn = False
    expected = arrays_of(stock(x))
    assert_close(arrays_of(layer(x))[0], expected[0], EXACT)
    for new in (layer.to_stock(), any_layer.kind.from_stock(stock)):
        assert_close(arrays_of(new(x))[0], expected[0], 1e-5)


@pytest.mark.costly(keep=5)
def test_what_is_frozen_stays_frozen(any_layer):
    layer = any_layer.make()
    layer.build((None, *any_layer.shape))
    names = ["kernel", "bias"]
    names += ["recurrent_kernel"] if any_layer.is_recurrent else []
    for frozen in names:
        stock = layer.to_stock()
        getattr(owner_of(stock), frozen).trainable = False
        new = any_layer.kind.from_stock(stock)
        back = owner_of(new.to_stock())
        for name in names:
            assert getattr(back, name).trainable == (name != frozen)
        # The weights behind it are all of it, and nothing else.
        kept = len(new.weights) - len(new.trainable_variables)
        whole = decomposed(stock) is getattr(owner_of(stock), frozen)
        behind = sum(len(svd.weights) for svd in new.svds.values())
        assert kept == (behind or 1 if whole else 1)


def test_layers_that_do_not_convert(any_layer):
    kind, layer = any_layer.kind, any_layer.make()
    layer.build((None, *any_layer.shape))
    stock = layer.to_stock()

    class Subclass(kind.stock):
        pass

    subclass = Subclass.from_config(stock.get_config())
    subclass.build((None, *any_layer.shape))
    unbuilt = kind.stock.from_config(stock.get_config())
    other = keras.layers.Embedding(2, 2)
    other.build((None, 2))
    for wrong in (layer, subclass, unbuilt, other, None):
        with pytest.raises(ValueError, match="`layer` must be a built.*Rec"):
            kind.from_stock(wrong)
    with pytest.raises(ValueError, match="must be built.*Received"):
        any_layer.make().to_stock()
    with pytest.raises(ValueError, match="`use_bias` cannot differ"):
        kind.from_stock(stock, use_bias=False)


@pytest.mark.costly(keep=5)
def test_activations_with_weights_do_not_go_over(any_layer):
    kind, x = any_layer.kind, any_layer.inputs()
    gated = hasattr(kind, "cell_class")
    names = ["activation"] + ["recurrent_activation"] * gated
    config = any_layer.make().get_config()
    for name in names:
        for activation in (ModReLU(), keras.layers.PReLU()):
            layer = any_layer.make(**{name: activation})
            layer(x)
            with pytest.raises(ValueError, match="trainable activation"):
                layer.to_stock()
        layer = any_layer.make()
        layer.build((None, *any_layer.shape))
        config = layer.to_stock().get_config()
        stock = kind.stock.from_config({**config, name: keras.layers.PReLU()})
        stock(x)
        with pytest.raises(ValueError, match="trainable activation"):
            kind.from_stock(stock)


def test_a_trained_initial_state_does_not_go_over():
    for kind in (SpectralRNN, OrthogonalRNN):
        layer = kind(UNITS, activation="tanh", trainable_initial_state=True)
        layer.build((None, None, FEATURES))
        with pytest.raises(ValueError, match="`SimpleRNN` has no.*Received"):
            layer.to_stock()


# Bounds


def test_bounds_that_do_not_hold(spectral):
    stock, convert = spectral.built().to_stock(), spectral.kind.from_stock
    with pytest.raises(ValueError, match="of `layer` cannot.*They would fit"):
        convert(stock, sigma_center=9.0, sigma_radius=0.01)
    with pytest.raises(ValueError, match="No `sigma_radius`.*sigma_center=0 "):
        convert(stock, sigma_center=0.1)
    wrong = (
        ("sigma_center", "wide"),
        ("sigma_center", -1.0),
        ("sigma_radius", "x"),
        ("sigma_mode", "bogus"),
        ("reflectors", -1),
        ("exact", "yes"),
    )
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"`{name}`.*Received"):
            convert(stock, **{name: value})
    with pytest.raises(ValueError, match="`sigma_radius`"):
        convert(stock, sigma_center=0.5, sigma_radius=0.6)
    with pytest.raises(ValueError, match="lie outside.*fixed"):
        convert(stock, sigma_mode="fixed", sigma_center=0.01)


def matrix_of(stock):
    kernel = array(decomposed(stock))
    return kernel.reshape(-1, kernel.shape[-1])


def test_an_integer_of_reflectors_is_no_more_than_of_use(spectral):
    stock = spectral.stock()
    layer = spectral.kind.from_stock(stock, reflectors=100)
    for svd in layer.svds.values():
        assert svd.reflectors == (min(svd.shape),) * 2
    assert_same_outputs(layer, stock, spectral.inputs(), 1e-5)


def test_the_nearest_fit_and_its_residual(spectral):
    """With too few reflectors, and with too narrow bounds."""
    stock, convert = spectral.stock(), spectral.kind.from_stock
    kernel = matrix_of(stock)
    cases = [{"sigma_center": 9.0, "sigma_radius": 0.01}]
    if min(kernel.shape) > 1:
        with pytest.raises(
            ValueError, match="(?s)so few ref.*exact=False.*residual"
        ):
            convert(stock, reflectors=(0, 1))
        cases.append({"reflectors": (0, 1)})
    for options in cases:
        fit = convert(stock, exact=False, **options)
        error = np.linalg.norm(array(fit.matrix()) - kernel)
        expected = error / np.linalg.norm(kernel)
        assert expected > 1e-3
        assert_close(fit.conversion_residual, expected, 1e-5)


def test_an_orthogonal_matrix_is_centered_at_one():
    orthogonal, _ = np.linalg.qr(normal(UNITS, UNITS))
    stock = SPECTRAL["rnn"].stock()
    stock.cell.recurrent_kernel.assign(orthogonal)
    config = SpectralRNN.from_stock(stock).get_config()
    assert_close(config["sigma_center"], 1.0, 1e-5)
    assert_close(config["sigma_radius"], 0.01, 1e-5)


def test_as_many_reflectors_as_the_rank_are_enough():
    stock = SPECTRAL["rnn"].stock()
    matrix = normal(UNITS, 2) @ normal(2, UNITS, seed=1)
    stock.cell.recurrent_kernel.assign(matrix)
    layer = SpectralRNN.from_stock(stock, reflectors=2, sigma_mode="free")
    assert layer.svd.reflectors == (2, 2)
    assert_close(array(layer.matrix()), matrix, CLOSE)


def test_a_center_is_kept_where_a_narrow_radius_holds():
    """A tenth of room is to be had, but is not a must."""
    stock = keras.layers.Dense(3, use_bias=False)
    stock.build((None, 3))
    stock.kernel.assign(np.diag([0.05, 0.7, 1.2]))
    layer = SpectralDense.from_stock(stock, sigma_center=1.0)
    assert layer.sigma_center == 1.0 and 0.95 < layer.sigma_radius < 1.0
    assert_close(array(layer.kernel), array(stock.kernel), 1e-6)


@pytest.mark.parametrize("name", SPECTRAL)
def test_the_gain_of_an_activation(name):
    """For signals of feed-forward layers; a recurrent kernel has none."""
    stock, kind = SPECTRAL[name].built().to_stock(), SPECTRAL[name].kind
    if SPECTRAL[name].is_recurrent:
        with pytest.raises(ValueError, match="`sigma_center`.*recurrent"):
            kind.from_stock(stock, sigma_center="auto")
        return
    for activation in ("relu", "leaky_relu"):
        fit = kind.from_stock(
            stock, sigma_center="auto", activation=activation, exact=False
        )
        assert fit.sigma_center == "auto"


@pytest.mark.parametrize("name", GATED)
def test_bounds_of_gates(name):
    """The same for all; what does not hold one gate is said of that gate."""
    kind = ALL[name].kind
    stock = ALL[name].stock()
    gates = kind.cell_class.gates
    blocks = [(i + 1) * np.eye(UNITS) for i in range(len(gates))]
    stock.cell.recurrent_kernel.assign(np.concatenate(blocks, axis=1))
    # Too narrow for the third and later gates.
    with pytest.raises(ValueError, match="candidate of `layer`.*sigma_radius="):
        kind.from_stock(stock, sigma_center=1.5, sigma_radius=0.75)
    reach = len(gates)
    with pytest.raises(
        ValueError, match=f"the {gates[-1]}.*in \\[{reach}.*, {reach}"
    ):
        kind.from_stock(stock, sigma_center=1.0)
    new = kind.from_stock(stock, sigma_mode="free")
    for gate, block in zip(gates, blocks):
        assert_close(array(new.svds[gate].matrix()), block, CLOSE)
    stock.cell.recurrent_kernel.assign(normal(UNITS, reach * UNITS))
    with pytest.raises(ValueError, match="(?s)gate of.*reflectors.*residual"):
        kind.from_stock(stock, reflectors=1)


def test_low_rank_adapters_go_into_the_kernel():
    """With adapters Keras has frozen the kernel that they change."""
    stock = SPECTRAL["dense"].stock()
    stock.enable_lora(1)
    shaken(stock)
    layer, x = SpectralDense.from_stock(stock), SPECTRAL["dense"].inputs()
    assert_same_outputs(layer, stock, x, 1e-5)
    assert len(layer.trainable_variables) == len(layer.weights)


# OrthogonalRNN


def test_an_orthogonal_kernel_goes_over_with_its_constraint():
    simple = keras.layers.SimpleRNN(UNITS, go_backwards=True)
    simple.build((None, None, FEATURES))
    layer = OrthogonalRNN.from_stock(simple)
    assert type(layer.recurrent_constraint) is Orthogonal
    # Keras' own start is orthogonal to float32.
    assert_same_outputs(layer, simple, normal(2, 5, FEATURES), 1e-5)
    matrix = array(layer.matrix())
    assert np.abs(matrix.T @ matrix - np.eye(UNITS)).max() < EXACT
    again = layer.to_stock()
    assert type(again.recurrent_constraint) is Orthogonal
    for a, b in zip(again.weights, layer.weights, strict=True):
        assert_close(array(a), array(b), 0.0)
    kept = keras.layers.SimpleRNN(UNITS, recurrent_constraint="max_norm")
    kept.build((None, None, FEATURES))
    constraint = OrthogonalRNN.from_stock(kept).recurrent_constraint
    assert type(constraint) is keras.constraints.MaxNorm


def test_a_kernel_that_is_not_orthogonal_is_projected_if_asked():
    simple = keras.layers.SimpleRNN(UNITS)
    simple.build((None, None, FEATURES))
    matrix = normal(UNITS, UNITS)
    simple.cell.recurrent_kernel.assign(matrix)
    with pytest.raises(ValueError, match="`layer`.*orthogonal.*Received"):
        OrthogonalRNN.from_stock(simple)
    with pytest.raises(ValueError, match="`project`.*Received"):
        OrthogonalRNN.from_stock(simple, project="yes")
    layer = OrthogonalRNN.from_stock(simple, project=True)
    u, _, vt = np.linalg.svd(matrix)
    assert_close(array(layer.matrix()), u @ vt, CLOSE)
    assert_close(array(simple.cell.recurrent_kernel), matrix, 0.0)
