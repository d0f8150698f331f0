"""One layer into another that computes the same: stock to spectral, and back.

Each table gives, for a class, the function that converts a layer of it.
"""

from keras import layers as stock

from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers.conversion import usable_reflectors
from tf_spectral.spectralize.carrying import carry_states
from tf_spectral.spectralize.carrying import own_weights


def _recurrent(layer_class):
    def from_stock(layer, reflectors=None, **kwargs):
        reflectors = usable_reflectors(reflectors, layer.units, layer.units)
        return layer_class.from_stock(layer, reflectors=reflectors, **kwargs)

    return from_stock


TO_SPECTRAL = {
    stock.Dense: SpectralDense.from_stock,
    stock.Conv1D: SpectralConv1D.from_stock,
    stock.Conv2D: SpectralConv2D.from_stock,
    stock.SimpleRNN: _recurrent(SpectralRNN),
    stock.LSTM: _recurrent(SpectralLSTM),
    stock.GRU: _recurrent(SpectralGRU),
}
TO_STOCK = {
    SpectralDense: SpectralDense.to_stock,
    SpectralConv1D: SpectralConv1D.to_stock,
    SpectralConv2D: SpectralConv2D.to_stock,
    SpectralRNN: SpectralRNN.to_stock,
    SpectralLSTM: SpectralLSTM.to_stock,
    SpectralGRU: SpectralGRU.to_stock,
}


def replace_layer(found, table, **options):
    """The layer that takes the place of one that was found.

    Args:
        found: `Found`.
        table: `TO_SPECTRAL` or `TO_STOCK`.
        **options: Arguments of the function in the table.

    Raises:
        ValueError: If it cannot be converted; the message names the layer.
    """
    layer = found.layer
    try:
        new = table[type(layer)](layer, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {found} cannot be converted. {error}"
        ) from error
    if not layer.trainable_variables:
        # The layers within hear of it by a change alone.
        new.trainable = True
        new.trainable = False
    own_weights(new)
    carry_states(layer, new)
    return new
