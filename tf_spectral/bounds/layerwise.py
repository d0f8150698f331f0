"""LayerwiseSmoothness: how stiff the loss is in each variable, at most."""

import math

import numpy as np
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.bounds import reading
from tf_spectral.bounds.propagation import check_record
from tf_spectral.bounds.propagation import squared_bounds
from tf_spectral.bounds.propagation import value_norms
from tf_spectral.linalg.norms import induced_norm

_ONE_EACH = ", one for each of `shapes`"
_HEADER = (
    "layer",
    "kind",
    "shape",
    "S1",
    "S2",
    "sup|f|",
    "input norm",
    "overlap",
    "status",
)


@register_keras_serializable("tf_spectral")
class LayerwiseSmoothness:
    """Bounds `p_i(w)^2` of the Hessian of the loss in each variable alone.

    For every trainable variable `i`, `p_i(w)^2` is at least the largest
    second derivative of the mean loss along steps of that variable of unit
    norm, whatever its value: it depends on the norms of other variables
    only. A step `-rho(g_i) / p_i^2` of one variable lowers the loss by at
    least `|g_i|^2 / (2 p_i^2)`.

    The record is plain data: it holds no model and no variables, and cannot
    know when the model changes. Call `from_model` again after a change of
    shapes, activations, loss, regularizers, constraints or dropout rates, of
    which layers are trainable, or of the values of frozen weights, whose
    norms are in the record. To write a record by hand, pass the nodes
    described in `tf_spectral.bounds.propagation`, in topological order.

    What is assumed: data within `input_norm`; for losses of squares, errors
    within `residual`; targets in the simplex or in [0, 1] for cross-entropies;
    sample weights up to `sample_weight_bound`. That Keras' cross-entropies
    clip probabilities at 1e-7 is not taken into account.

    Args:
        nodes: List of dictionaries.
        shapes: Shapes of the trainable variables, in their order.
        names: Their names. Defaults to numbers.
        loss: Dictionary with `kind`, `d1`, `d2`, `residual`, `doubt`.
        norm: 1, 2 or `"inf"`, the norm on the layers' outputs; weights have
            the norm that it induces. Defaults to `2`.
        offset: Positive float, added to every bound; small values make longer
            steps where the bound is small. Defaults to `1.0`.
        penalties: List of floats, the Hessians of the regularizers of the
            variables. Defaults to zeros.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import LayerwiseSmoothness
    >>> model = keras.Sequential([
    ...     keras.layers.Input((784,)),
    ...     keras.layers.Dense(300, activation="tanh"),
    ...     keras.layers.Dense(10),
    ... ])
    >>> loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    >>> smoothness = LayerwiseSmoothness.from_model(model, "inf", loss=loss)
    >>> p2 = smoothness.squared_bounds(model.trainable_variables)
    >>> smoothness.needed_norms
    (2,)

    Reference: Flynn, "The duality structure gradient descent algorithm",
    proposition 4.3, for general widths, activations, losses and graphs.
    """

    def __init__(
        self,
        nodes,
        shapes,
        names=None,
        loss=None,
        norm=2,
        offset=1.0,
        penalties=None,
    ):
        self.norm = checks.norm("norm", norm)
        self.offset = checks.positive("offset", offset)
        self.shapes = tuple(
            checks.shape("shapes", shape, minimum=0)
            for shape in checks.sequence("shapes", shapes)
        )
        count = len(self.shapes)
        names = range(count) if names is None else names
        if not isinstance(names, range):
            names = checks.sequence("names", names, count, _ONE_EACH)
        self.names = tuple(str(name) for name in names)
        penalties = [0.0] * count if penalties is None else penalties
        self._penalties = [
            checks.non_negative("penalties", penalty)
            for penalty in checks.sequence(
                "penalties", penalties, count, _ONE_EACH
            )
        ]
        self._nodes = [
            dict(checks.instance("nodes", node, dict, "a list of dictionaries"))
            for node in checks.sequence("nodes", nodes)
        ]
        loss = {} if loss is None else loss
        self._loss = dict(checks.instance("loss", loss, dict, "a dictionary"))
        check_record(self._nodes, self._loss, count)
        read = set()
        self._evaluate(lambda i: read.add(i) or 1.0)
        self.needed_norms = tuple(sorted(read))

    @classmethod
    def from_model(
        cls,
        model,
        norm=2,
        input_norm=None,
        residual=None,
        loss=None,
        offset=1.0,
        sample_weight_bound=1.0,
    ):
        """The record of a Sequential or Functional model and its loss.

        Layers for which there is no theory (ReLU, normalisation, attention,
        recurrence, max pooling, layers used twice) are named in one warning.
        They count as 1-Lipschitz and without curvature, their variables as
        those of a dense layer; `certified` is then `False`.

        Args:
            model: Built Sequential or Functional model with one output.
            norm: 1, 2 or `"inf"`. Defaults to `2`.
            input_norm: Largest norm of an example as the model reads it: a
                positive float, a list with one for each input, or a
                dictionary by input name. Defaults to the norm of an example
                whose entries are all 1: right for entries within [-1, 1], or,
                before a `Rescaling` layer that shrinks by one number, for
                entries that it brings within [-1, 1]. `check_inputs` tests
                data. Full-batch training with the norms 1 and 2 may use the
                root mean square of the norms of all examples, but not with
                sample weights that `reduction="mean_with_sample_weight"`
                divides out: the largest examples may have the largest ones.
                With `"inf"` it may not: where values are joined, the mean of
                maxima is not the maximum of means.
            residual: Largest error of an output, for losses of squares.
                Defaults to `1 + max|output|` for targets within [-1, 1], and
                at least `2.0`, as in the paper. Unbounded outputs need it.
            loss: Keras loss, or its name, or `"sum_of_squares"`. Defaults to
                the loss that the model was compiled with.
            offset: Positive float. Defaults to `1.0`.
            sample_weight_bound: Largest sample or class weight. Defaults to
                `1.0`. With `reduction="mean_with_sample_weight"` it does not
                matter: the weights are divided out.

        Returns:
            `LayerwiseSmoothness`.

        Raises:
            ValueError: If the model is not built, is no graph of layers or has
                several outputs; if the loss is unknown or does not average
                over the batch; if outputs are unbounded and the loss is one
                of squares; if an argument is out of range.
        """
        offset = checks.positive("offset", offset)
        record = reading.read_model(
            model,
            checks.norm("norm", norm),
            input_norm,
            residual,
            loss,
            checks.positive("sample_weight_bound", sample_weight_bound),
        )
        smoothness = cls(offset=offset, **record)
        reading.warn_of_doubts(smoothness.doubts())
        return smoothness

    @classmethod
    def from_variables(cls, variables, norm=2):
        """A guess for a model of which only the variables are known.

        Consecutive variables of one path are a layer, its first variable of
        rank 2 or more the kernel; without paths, each such variable opens a
        layer. The layers are taken as a chain with tanh between them, inputs
        within [-1, 1], logits and softmax cross-entropy at the end. Exact for
        such dense networks, a heuristic for all others.

        Args:
            variables: List of trainable variables, in their order.
            norm: 1, 2 or `"inf"`. Defaults to `2`.

        Returns:
            `LayerwiseSmoothness` with `certified` false.
        """
        return cls(
            **reading.read_variables(list(variables), checks.norm("norm", norm))
        )

    @property
    def certified(self):
        """Whether every number in the record is a bound."""
        return not self.doubts()

    def doubts(self):
        """Pairs of a layer and why its numbers are a heuristic."""
        found = [
            (node["layer"], node["doubt"])
            for node in self._nodes
            if node["doubt"]
        ]
        if self._loss["doubt"]:
            found.append(("loss", self._loss["doubt"]))
        return list(dict.fromkeys(found))

    def squared_bounds(self, variables):
        """`p_i(w)^2` at the variables' values.

        Args:
            variables: The model's trainable variables, in their order.

        Returns:
            Tensor `(n,)`, float64 if the variables are, else float32.

        Raises:
            ValueError: If the variables have other shapes.
        """
        variables = list(variables)
        self.check(variables)

        def read(i):
            norm = induced_norm(ops.convert_to_tensor(variables[i]), self.norm)
            return ops.cast(norm, dtype)

        dtypes = {working_dtype(v.dtype) for v in variables}
        dtype = "float64" if dtypes == {"float64"} else "float32"
        return ops.convert_to_tensor(self._evaluate(read), dtype)

    def squared_bounds_from_norms(self, norms):
        """`p_i(w)^2` from norms, or upper bounds of norms, of the variables.

        Args:
            norms: Floating tensor `(n,)`, or list of `n` scalar tensors. Only
                the entries in `needed_norms` are read, others may be `None`;
                all of `norms` may be where no norm is needed.

        Returns:
            Tensor `(n,)`, float64 if the norms are, else float32.
        """
        if norms is None or isinstance(norms, (list, tuple)):
            sample = [norms[i] for i in self.needed_norms[:1]]
        else:
            norms = ops.convert_to_tensor(norms)
            sample = [norms]
        dtypes = [working_dtype(ops.convert_to_tensor(x).dtype) for x in sample]
        dtype = dtypes[0] if dtypes else "float32"
        result = self._evaluate(lambda i: ops.cast(norms[i], dtype))
        return ops.convert_to_tensor(result, dtype)

    def check(self, variables):
        """Raises unless the variables are as many and shaped as recorded."""
        shapes = tuple(tuple(v.shape) for v in variables)
        if shapes != self.shapes:
            received = [
                f"{getattr(v, 'path', None) or getattr(v, 'name', i)} {shape}"
                for i, (v, shape) in enumerate(zip(variables, shapes))
            ]
            expected = [
                f"{name} {shape}"
                for name, shape in zip(self.names, self.shapes)
            ]
            raise ValueError(
                "The smoothness record was made for other variables. "
                f"Expected {expected}, Received: variables={received}"
            )

    def check_inputs(self, x):
        """Raises unless data are within the `input_norm` of the record.

        Bounds hold for such data alone. Inputs that no bound reads, such as
        the tokens of an embedding, are not looked at.

        Args:
            x: What `fit` takes: array `(examples, ...)`, list with one for
                each input, or dictionary by input name.

        Raises:
            ValueError: If an example is larger, or is not finite; the message
                names the input and the largest norm.

        Example:

        >>> import numpy as np
        >>> import keras
        >>> from tf_spectral.bounds import LayerwiseSmoothness
        >>> model = keras.Sequential(
        ...     [keras.Input((2,)), keras.layers.Dense(3, "softmax")]
        ... )
        >>> smoothness = LayerwiseSmoothness.from_model(
        ...     model, loss="categorical_crossentropy"
        ... )
        >>> smoothness.check_inputs(np.array([[0.5, -1.0], [1.0, 1.0]]))
        """
        _check_inputs(self._nodes, self.norm, x)

    def __repr__(self):
        return (
            f"<LayerwiseSmoothness of {len(self.shapes)} weights, "
            f"norm={self.norm!r}, certified={self.certified}>"
        )

    def report(self):
        """A table, as a string, of what is assumed of each layer."""
        return _report(
            self._nodes, self._loss, self.norm, self.offset, self.certified
        )

    def get_config(self):
        return {
            "nodes": [dict(node) for node in self._nodes],
            "shapes": [list(shape) for shape in self.shapes],
            "names": list(self.names),
            "loss": dict(self._loss),
            "norm": self.norm,
            "offset": self.offset,
            "penalties": list(self._penalties),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _evaluate(self, read):
        additions = np.array(self._penalties) + self.offset
        loss = self._loss["d1"], self._loss["d2"]
        return squared_bounds(self._nodes, loss, additions, self.norm, read)


# Data that are to keep to a record.


def _check_inputs(nodes, q, x):
    """Raises unless every example is within the bound of its input node.

    Args:
        nodes: List of the nodes of a record.
        q: 1, 2 or `"inf"`.
        x: Array, list of arrays or dictionary of arrays by input name.
    """
    inputs = [node for node in nodes if "assumed" in node]
    names = [node["layer"] for node in inputs]
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(
                f"Argument `x` must name every input. Expected {names}, "
                f"Received: x with the keys {list(x)}"
            )
        x = [x[name] for name in names]
    elif not isinstance(x, (list, tuple)) or len(inputs) == 1 != len(x):
        x = [x]
    if len(x) != len(inputs):
        raise ValueError(
            "Argument `x` must have one array for each input. Expected "
            f"{names}, Received: {len(x)} arrays"
        )
    for node, array in zip(inputs, x):
        if node.get("read", True):
            _check_examples(node, q, ops.convert_to_numpy(array))


def _check_examples(node, q, array):
    # bfloat16 is of the kind "V": no class of numbers of NumPy's.
    real = array.dtype.kind in "biufV" and array.dtype.names is None
    if not real or array.ndim == 0:
        raise ValueError(
            "Argument `x` must hold real numbers, examples along the first "
            f"axis. Received: x of shape {array.shape} and dtype "
            f"{array.dtype} for the input '{node['layer']}'"
        )
    width = math.prod(array.shape[1:])
    flat = array.astype("float64").reshape(len(array), width)
    bound, what = node["bound"], "norm"
    if "radius" in node:
        flat = flat - node["center"]
        bound = node["radius"]
        what = f"distance from {node['center']:.6g}, in the norm,"
    flat = np.abs(flat)
    sizes = {
        1: lambda: flat.sum(1),
        2: lambda: np.sqrt((flat**2).sum(1)),
        "inf": lambda: flat.max(1, initial=0.0),
    }[q]()
    largest = sizes.max(initial=0.0)
    # The bound may have been computed from data in float32.
    if not largest <= bound * (1 + 1e-6):
        raise ValueError(
            f"Argument `x` has an example of {q}-{what} {largest:.6g} for the "
            f"input '{node['layer']}', and the bounds are for at most "
            f"{bound:.6g}. Expected such data, or a record made with "
            f"this `input_norm`, Received: x[{int(np.argmax(sizes))}]"
        )


# The report, a table.


def _report(nodes, loss, norm, offset, certified):
    """The table of `LayerwiseSmoothness.report`, as a string."""
    # Weights of unknown norm turn into NaN what depends on them.
    sizes = value_norms(nodes, norm, _known)
    rows = [_HEADER] + [_row(node, sizes) for node in nodes]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    residual = loss["residual"]
    limit = "" if residual is None else f", errors up to {residual:.6g}"
    status = "certified" if certified else "heuristic"
    head = [
        f"LayerwiseSmoothness: norm {norm}, offset {offset:.6g}, {status}",
        f"loss: {loss['kind']}, d1 = {loss['d1']:.6g}, "
        f"d2 = {loss['d2']:.6g}{limit}, {_status(loss)}",
    ]
    return "\n".join(head + [""] + lines)


def _row(node, sizes):
    activation = node["kind"] == "activation"
    parents = [sizes[p] for p in node["parents"]]
    reads = any(reads for _, reads, _ in node["starts"])
    own = node["kind"] == "input"
    size = node.get("bound") if own else parents[0] if reads else None
    return (
        node["layer"],
        node["label"],
        str(tuple(node["shape"])),
        _number(node["slope"] if activation else None),
        _number(node["curvature"] if activation else None),
        _limit(node) if activation else "",
        _number(size),
        str(node.get("overlap", "")),
        _status(node),
    )


def _known(node, role):
    if node[role] is not None:
        return math.nan
    return node[role + "_norm"]


def _limit(node):
    return "none" if node["supremum"] is None else _number(node["supremum"])


def _number(x):
    if x is None:
        return ""
    return "by weights" if math.isnan(x) else f"{x:.6g}"


def _status(entry):
    doubt = entry["doubt"]
    return f"heuristic: {doubt}" if doubt else "certified"
