"""What the Spectral-RNN is measured against, where Keras has no such layer."""

import keras
from keras import ops


class SequentialReflectorCell(keras.layers.SimpleRNNCell):
    """The paper's way: one reflector after another at each time step.

    Algorithm 1 of Zhang et al., 2018: `m_u + m_v` products of a vector by a
    Householder reflector, each a dot product and an update.
    """

    def __init__(self, units, reflectors, **kwargs):
        super().__init__(units, activation="leaky_relu", **kwargs)
        self.reflectors = reflectors

    def build(self, input_shape):
        super().build(input_shape)
        for name in ("u", "v"):
            setattr(
                self,
                name,
                self.add_weight(
                    name=name,
                    shape=(self.reflectors, self.units),
                    initializer="random_normal",
                ),
            )

    def call(self, sequence, states, training=False):
        h = self._reflect(states[0], self.v, range(self.reflectors))
        h = self._reflect(h, self.u, reversed(range(self.reflectors)))
        z = ops.matmul(sequence, self.kernel) + self.bias
        h = self.activation(z + h)
        return h, [h]

    def _reflect(self, h, vectors, order):
        for i in order:
            u = vectors[i]
            tau = 2 / ops.sum(u * u)
            h = h - tau * ops.sum(h * u, axis=1, keepdims=True) * u
        return h


def torch_layer(side, units):
    """PyTorch's own `nn.RNN` or `nn.LSTM`, cuDNN's on a GPU."""
    import torch

    kinds = {"torch rnn": torch.nn.RNN, "torch lstm": torch.nn.LSTM}
    module = kinds[side](1, units, batch_first=True)

    class LastState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)[0][:, -1]

    return keras.layers.TorchModuleWrapper(
        LastState(), output_shape=(None, units)
    )
