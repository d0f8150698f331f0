"""Principal components by gradient descent on an orthogonal matrix.

    python keras_examples/principal_components.py          # 8x8 digits
    python keras_examples/principal_components.py --components 5 --data mnist

A linear autoencoder with one weight: an image is projected onto the first k
columns of an orthogonal matrix, a product of k Householder reflectors, and
back. The matrix stays orthogonal at every step, whatever the optimizer. The
best it can do is known, the share of the variance in the k largest singular
values of the data (Eckart and Young, 1936), and printed beside.
"""

import keras
import numpy as np

from support import arguments
from support import records
from tf_spectral import datasets
from tf_spectral.linalg.orthogonal import orthogonality_error
from tf_spectral.parametrizations import Orthogonal


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/components_<data>")
    add = parser.add_argument
    images = ("digits", "mnist", "fashion_mnist")
    add("--data", choices=images, default="digits")
    add("--components", type=int, nargs="+", default=[2, 8, 16])
    add("--epochs", type=int, default=60)
    add("--batch", type=int, default=128)
    add("--learning-rate", type=float, default=0.03)
    return arguments.parse(parser)


class Projection(keras.layers.Layer):
    """Projects onto the first columns of an orthogonal matrix."""

    def __init__(self, components, **kwargs):
        super().__init__(**kwargs)
        self.components = components

    def build(self, shape):
        self.rotation = Orthogonal(shape[-1], reflectors=self.components)
        self.rotation.build()

    def call(self, x):
        basis = self.rotation.matrix()[:, : self.components]
        return (x @ basis) @ keras.ops.transpose(basis)


def share_of_variance(x, projected):
    """How much of the variance of the rows a projection keeps."""
    return 1.0 - np.sum((x - projected) ** 2) / np.sum(x**2)


def best_share(x, components):
    """The largest share that a projection of this rank can keep."""
    squares = np.linalg.svd(x, compute_uv=False) ** 2
    return squares[:components].sum() / squares.sum()


def train(x, components, args):
    """Fits a projection; returns its share and its orthogonality error."""
    keras.utils.set_random_seed(args.seed)
    projection = Projection(components)
    model = keras.Sequential([keras.Input((x.shape[1],)), projection])
    updates = args.epochs * -(-len(x) // args.batch)
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, updates)
    model.compile(keras.optimizers.Adam(rate), loss="mse")
    model.fit(x, x, batch_size=args.batch, epochs=args.epochs, verbose=0)
    share = share_of_variance(x, model.predict(x, batch_size=1000, verbose=0))
    error = orthogonality_error(projection.rotation.matrix())
    return share, float(keras.ops.convert_to_numpy(error))


def main():
    args = parse_arguments()
    records.write_command(args.out, args, fixed=True)
    (x, _), *_ = datasets.images(args.data, seed=args.seed)
    x = x - x.mean(axis=0)
    found = {}
    print("| components | share of the variance | best | orthogonal up to |")
    print("|---|---|---|---|")
    for components in args.components:
        share, error = train(x, components, args)
        best = float(best_share(x, components))
        found[components] = {"share": float(share), "best": best}
        row = f"| {components} | {share:.4f} | {best:.4f} | {error:.1e} |"
        print(row, flush=True)
    records.write_json(args.out / "shares.json", found)


if __name__ == "__main__":
    main()
