"""Reads a Keras model, or its variables alone, into a record of bounds."""

import warnings

import keras
from keras import regularizers
from keras import tree

from tf_spectral import checks
from tf_spectral.backend.keras_internals import call_behind
from tf_spectral.backend.keras_internals import is_graph
from tf_spectral.backend.keras_internals import is_of_keras
from tf_spectral.bounds import losses
from tf_spectral.bounds import rules
from tf_spectral.bounds.exponents import matrix_pairing
from tf_spectral.bounds.exponents import root
from tf_spectral.bounds.graph import penalises
from tf_spectral.bounds.graph import walk
from tf_spectral.bounds.propagation import NodeList
from tf_spectral.bounds.propagation import needed_values
from tf_spectral.bounds.propagation import size

_TRAINING = (
    "train_step",
    "make_train_function",
    "compute_loss",
    "_compute_loss",
    "compute_loss_and_updates",
    "stateless_compute_loss",
)
_GUESS = "guessed from the variables"


def read_model(model, q, input_norm, residual, loss, weight_bound):
    """The arguments of `LayerwiseSmoothness`, but for the offset.

    Args:
        model: Keras model.
        q: 1, 2 or `"inf"`.
        input_norm: As in `LayerwiseSmoothness.from_model`.
        residual: The same.
        loss: The same.
        weight_bound: Positive float, the largest sample weight.

    Returns:
        Dictionary.

    Raises:
        ValueError: As in `LayerwiseSmoothness.from_model`.
    """
    _check_model(model)
    loss, loss_weight = _find_loss(model, loss)
    kind = losses.recognise(loss)
    weighted = getattr(loss, "reduction", "") == "mean_with_sample_weight"
    if weighted:
        # The weights are divided out: what is left sums to one.
        weight_bound = 1.0
    if _trains_otherwise(model):
        kind = kind._replace(doubt="the model computes a loss of its own")
    variables = model.trainable_variables
    nodes = NodeList(q, variables)
    inputs = _read_inputs(nodes, model, input_norm)
    output = walk(model, inputs, lambda call: rules.visit(nodes, call))
    if nodes.keep_what_leads_to(output):
        kind = kind._replace(doubt="outputs that are not read may add to it")
    if kind.folded:
        kind = _fold(nodes.nodes, kind)
    _start_the_rest(nodes, variables)
    _doubt_constraints(nodes, variables)
    _note_inputs_that_are_read(nodes.nodes)
    numbers = _penalties(variables, nodes)
    shape = model.outputs[0].shape[1:]
    # Weights of their own may leave one of the positions alone.
    positions = 1 if weighted else size(shape[:-1])
    return {
        "nodes": nodes.nodes,
        "shapes": [tuple(v.shape) for v in variables],
        "names": [v.path for v in variables],
        "loss": _read_loss(
            kind,
            nodes,
            shape,
            positions,
            residual,
            loss_weight * weight_bound,
        ),
        "norm": q,
        "penalties": numbers,
    }


def warn_of_doubts(doubts):
    """One warning that names every layer without a bound."""
    if doubts:
        listed = "; ".join(f"{layer}: {why}" for layer, why in doubts)
        warnings.warn(
            "The bounds of this model are a heuristic, steps are not "
            f"certified. Layers without a bound: {listed}",
            stacklevel=3,
        )


def _check_model(model):
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "Argument `model` must be built. Expected a model with an Input "
            f"layer, or called on data once, Received: model={model}"
        )
    if not is_graph(model):
        raise ValueError(
            "Argument `model` must be a Sequential or Functional model. For "
            "others use `LayerwiseSmoothness.from_variables` or build the "
            f"record by hand. Received: model={model}"
        )
    if len(model.outputs) != 1:
        raise ValueError(
            "Argument `model` must have one output. "
            f"Received: a model with {len(model.outputs)} outputs"
        )


def _find_loss(model, loss):
    """The loss, given or compiled, and its weight."""
    weight = _compiled_weight(model)
    if loss is not None:
        return loss, weight
    found = [x for x in tree.flatten(getattr(model, "loss", None)) if x]
    if len(found) != 1:
        raise ValueError(
            "Argument `loss` is needed for a model that was not compiled with "
            f"one loss. Received: loss=None, model.loss={model.loss}"
        )
    return found[0], weight


def _trains_otherwise(model):
    """Whether `model` has steps or losses that Keras did not write."""
    found = [getattr(type(model), name, None) for name in _TRAINING]
    keras_own = all(is_of_keras(f) for f in found if f)
    changed = any(name in vars(model) for name in _TRAINING)
    return not keras_own or changed or penalises(model)


def _compiled_weight(model):
    """The `loss_weights` of the one output, also beside a loss that is given.

    It is the loss of the training that the weight multiplies.
    """
    config = (model.compiled and model.get_compile_config()) or {}
    weights = tree.flatten(config.get("loss_weights"))
    weights = [w for w in weights if w is not None] or [1.0]
    return checks.positive("loss_weights", weights[0])


def _read_inputs(nodes, model, input_norm):
    bounds = _input_bounds(model, input_norm)
    indices = []
    for tensor, bound in zip(model.inputs, bounds):
        shape = tuple(tensor.shape[1:])
        doubt = None
        if None in shape:
            doubt = "unknown length, taken as 1"
        assumed = bound is None
        if assumed:
            bound = root(size(shape), nodes.q)
        index = nodes.input(_name(tensor), shape, bound, doubt)
        nodes.nodes[index]["assumed"] = assumed
        indices.append(index)
    return indices


def _note_inputs_that_are_read(nodes):
    """Marks the inputs whose norms some bound depends on."""
    for node, read in zip(nodes, needed_values(nodes)):
        if "assumed" in node:
            node["read"] = read or "radius" in node


def _name(tensor):
    return call_behind(tensor).operation.name


def _input_bounds(model, input_norm):
    names = [_name(tensor) for tensor in model.inputs]
    if isinstance(input_norm, dict):
        if set(input_norm) != set(names):
            raise ValueError(
                "Argument `input_norm` must name every input. "
                f"Expected {names}, Received: input_norm={input_norm}"
            )
        input_norm = [input_norm[name] for name in names]
    if not isinstance(input_norm, (list, tuple)):
        input_norm = [input_norm] * len(names)
    if len(input_norm) != len(names):
        raise ValueError(
            "Argument `input_norm` must have one entry for each input. "
            f"Expected {len(names)}, Received: input_norm={input_norm}"
        )
    return [
        None if bound is None else checks.positive("input_norm", bound)
        for bound in input_norm
    ]


def _fold(nodes, loss):
    """Drops the last activation: the loss is a function of its input."""
    last = nodes[-1]
    if last["kind"] != "activation" or last["label"] != loss.folded:
        raise ValueError(
            f"Argument `loss` reads probabilities: {loss.kind} has global "
            "bounds as a function of the logits only. Expected "
            f"activation='{loss.folded}' at the end, or a loss with "
            f"from_logits=True, Received: {last['label']} in layer "
            f"'{last['layer']}'"
        )
    # What was doubtful about the activation is so about the loss.
    nodes.pop()
    return loss._replace(doubt=loss.doubt or last["doubt"])


def _start_the_rest(nodes, variables):
    """Variables of no layer act on the output, as in an unknown layer."""
    leading = {start[0] for n in nodes.nodes for start in n["starts"]}
    # Those that act on what is not read move the output by nothing.
    for i in sorted(nodes.started - leading):
        nodes.nodes[-1]["starts"].append([i, False, 0.0])
    for i, variable in enumerate(variables):
        if i not in nodes.started:
            last = nodes.nodes[-1]
            last["doubt"] = last["doubt"] or "variables of no known layer"
            nodes.start(len(nodes.nodes) - 1, variable, False, 1.0)


def _doubt_constraints(nodes, variables):
    """A constraint moves weights after the step that was certified."""
    for i, variable in enumerate(variables):
        if getattr(variable, "constraint", None) is not None:
            nodes.doubt(i, "a constraint moves the weights after each step")


def _read_loss(loss, nodes, shape, positions, residual, weight):
    outputs = (shape[-1] or 1) if shape else 1
    doubt = loss.doubt
    if not shape and losses.has_classes(loss):
        doubt = doubt or "classes along the batch"
    if not losses.needs_residual(loss):
        residual = None
    else:
        limit = _largest_entry(nodes.nodes)
        if residual is None and limit is None:
            raise ValueError(
                f"The loss {loss.kind} has no global bounds for unbounded "
                "outputs. Expected a bounded last activation, a loss such as "
                "Huber, or the argument `residual` (a heuristic then), "
                "Received: residual=None"
            )
        if residual is None:
            residual = max(2.0, 1.0 + limit)
        elif limit is None:
            doubt = "unbounded outputs, the residual is a guess"
        residual = checks.positive("residual", residual)
    d1, d2 = losses.loss_constants(loss, nodes.q, outputs, positions, residual)
    return {
        "kind": loss.kind,
        "d1": weight * d1,
        "d2": weight * d2,
        "residual": residual,
        "doubt": doubt,
    }


def _largest_entry(nodes):
    """A bound of the entries of the output, or `None`."""
    largest = []
    for node in nodes:
        parents = [largest[p] for p in node["parents"]]
        largest.append(_entry_bound(node, parents))
    return largest[-1]


def _entry_bound(node, parents):
    if node.get("supremum") is not None:
        return node["supremum"]
    known = parents and None not in parents
    if not known or node["kind"] in ("affine", "activation"):
        return None
    if node["kind"] == "sum":
        return sum(w * x for w, x in zip(node["weights"], parents))
    if node["kind"] == "concatenate":
        return max(parents)
    # Averages and moves have factors below 1, but not on every entry.
    return max(1.0, node["factor"]) * parents[0] + node["shift"]


# Regularizers.


def _penalties(variables, nodes):
    """Bounds of the Hessian of each variable's regularizer.

    The penalty `l2 |k|_F^2` has second derivative `2 l2 <u, v>`. Others leave
    a doubt at the node of their variable.

    Args:
        variables: List of Keras variables.
        nodes: `NodeList`, changed in place.

    Returns:
        List of floats.
    """
    numbers = []
    for i, variable in enumerate(variables):
        rate = _rate(getattr(variable, "regularizer", None))
        if rate is None:
            nodes.doubt(i, "regularizer other than L2")
        pairing = _pairing(variable.shape, nodes.q)
        numbers.append(2.0 * (rate or 0.0) * pairing)
    return numbers


def _rate(regularizer):
    if regularizer is None:
        return 0.0
    if type(regularizer) is regularizers.L2:
        return float(regularizer.l2)
    smooth = type(regularizer) is regularizers.L1L2 and regularizer.l1 == 0
    return float(regularizer.l2) if smooth else None


def _pairing(shape, q):
    if len(shape) < 2:
        return matrix_pairing(1, size(shape), q)
    return matrix_pairing(size(shape[:-1]), shape[-1], q)


# Variables alone.


def read_variables(variables, q):
    """The arguments of `LayerwiseSmoothness` for a chain of tanh layers.

    Args:
        variables: List of variables or tensors, in the order of the layers.
        q: 1, 2 or `"inf"`.

    Returns:
        Dictionary.
    """
    nodes = NodeList(q, variables)
    groups = _group_by_layer(variables)
    value = nodes.input("input", (), 1.0)
    for i, (name, group) in enumerate(groups):
        value = _layer(nodes, name, group, value)
        if i + 1 < len(groups):
            width = group[-1].shape[-1:]
            value = nodes.activation(name, "tanh", value, tuple(width))
    for node in nodes.nodes:
        node["doubt"] = _GUESS
    d1, d2 = losses.loss_constants(
        losses.Loss("categorical_crossentropy"), q, 1, 1
    )
    return {
        "nodes": nodes.nodes,
        "shapes": [tuple(v.shape) for v in variables],
        "names": [_path(v) or str(i) for i, v in enumerate(variables)],
        "norm": q,
        "loss": {
            "kind": "categorical_crossentropy",
            "d1": d1,
            "d2": d2,
            "residual": None,
            "doubt": _GUESS,
        },
    }


def _group_by_layer(variables):
    """Consecutive variables of one layer, as pairs of a name and a list.

    Paths change when a model is loaded and may repeat, so only runs count: a
    new layer begins with a new parent path or when a name comes again;
    without paths, with every variable of rank 2 or more.
    """
    groups = []
    seen = set()
    for variable in variables:
        parent, _, name = _path(variable).rpartition("/")
        kernel = len(variable.shape) > 1
        again = name in seen if name else kernel and bool(groups)
        if not groups or parent != groups[-1][0] or again:
            groups.append((parent, []))
            seen = set()
        groups[-1][1].append(variable)
        seen.add(name)
    return [
        (parent or f"layer {i}", group)
        for i, (parent, group) in enumerate(groups)
    ]


def _layer(nodes, name, group, value):
    kernels = [v for v in group if len(v.shape) > 1]
    shape = tuple(group[-1].shape[-1:])
    if kernels:
        kernel = kernels[0]
        # Entries of the input within [-1, 1].
        bound = root(size(kernel.shape[:-1]), nodes.q)
        value = nodes.scale(
            name, "input", value, kernel.shape[:-1], ceiling=bound
        )
        node = nodes.affine(
            name, "guess", value, kernel.shape[-1:], (kernel, None)
        )
    else:
        kernel = None
        node = nodes.scale(name, "guess", value, shape)
    for variable in group:
        if variable is not kernel:
            rows = size(variable.shape[:-1])
            nodes.start(node, variable, False, root(rows, nodes.q))
    return node


def _path(variable):
    path = getattr(variable, "path", None) or getattr(variable, "name", None)
    return str(path or "").split(":")[0]
