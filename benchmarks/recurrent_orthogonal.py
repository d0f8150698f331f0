"""Orthogonal recurrent networks: whole training steps of copying memory.

This library's beside the two ways of PyTorch, both eager, a Python loop over
time. They are written as fast as eager PyTorch goes: the input is multiplied
by its kernel for all steps in one product, the recurrent matrix is formed
once per sequence, and a step is one `addmm` and a modReLU.
"""

import importlib.util
import os

import keras
import numpy as np
from timing import median_seconds

from tf_spectral import datasets
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.optimizers import SRCD

UNITS, BATCH, CODES, CLASSES = 190, 128, 10, 9
RATE = 1e-3
GOAL = 0.5
OWN = {
    "OrthogonalRNN, SRCD random": {"selection": "random"},
    "OrthogonalRNN, SRCD greedy block": {
        "selection": "greedy",
        "block_size": UNITS // 2,
    },
}
PEERS = {
    "expRNN-style, torch.matrix_exp": "torch",
    "GeoTorch, orthogonal": "geotorch",
}


def own_step(options, x, y, jit):
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            OrthogonalRNN(
                UNITS,
                return_sequences=True,
                use_bias=False,
                recurrent_constraint=Orthogonal(),
            ),
            keras.layers.Dense(CLASSES),
        ]
    )
    inner = keras.optimizers.RMSprop(RATE, rho=0.99)
    model.compile(
        SRCD(RATE / 10, euclidean_optimizer=inner, seed=0, **options),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    return lambda: model.train_on_batch(x, y)


def peer_step(side, x, y):
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = peer_network(torch, side)
    recurrent = list(network.recurrent.parameters())
    names = {id(p) for p in recurrent}
    others = [p for p in network.parameters() if id(p) not in names]
    optimizer = torch.optim.RMSprop(
        [{"params": others}, {"params": recurrent, "lr": RATE / 10}], lr=RATE
    )
    x, y = torch.from_numpy(x), torch.from_numpy(y).long()
    # Time first, as the network wants it.
    x, y = x.transpose(0, 1).contiguous(), y.transpose(0, 1).reshape(-1)

    def run():
        optimizer.zero_grad()
        logits = network(x).reshape(-1, CLASSES)
        loss = torch.nn.functional.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def peer_network(torch, side):
    class SkewExponential(torch.nn.Module):
        def __init__(self):
            super().__init__()
            angles = torch.empty(UNITS, UNITS).uniform_(-0.1, 0.1)
            self.upper = torch.nn.Parameter(angles)

        @property
        def weight(self):
            upper = torch.triu(self.upper, diagonal=1)
            return torch.matrix_exp(upper - upper.T)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Linear(CODES, UNITS, bias=False)
            if side.startswith("GeoTorch"):
                import geotorch

                self.recurrent = torch.nn.Linear(UNITS, UNITS, bias=False)
                geotorch.orthogonal(self.recurrent, "weight")
            else:
                self.recurrent = SkewExponential()
            self.bias = torch.nn.Parameter(torch.zeros(UNITS))
            self.out = torch.nn.Linear(UNITS, CLASSES)

        def forward(self, x):
            matrix, states = self.recurrent.weight, []
            h = x.new_zeros(x.shape[1], UNITS)
            for inputs in self.kernel(x).unbind(0):
                z = torch.addmm(inputs, h, matrix)
                h = torch.sign(z) * torch.relu(torch.abs(z) + self.bias)
                states.append(h)
            return self.out(torch.stack(states))

    torch.manual_seed(0)
    return Network()


def print_orthogonal(length, repeats, compilations):
    """Prints the table of one whole training step.

    Args:
        length: Integer, how many steps to remember.
        repeats: Integer, at least 5.
        compilations: Tuple of booleans, the values of `jit_compile` to try.
    """
    print(
        "\n### Orthogonal RNN: one whole training step of copying at "
        f"L = {length}, n = {UNITS}, batch {BATCH}\n"
    )
    x, y = datasets.copying(BATCH, length, seed=0)
    x, y = x.astype("float32"), np.asarray(y, "int32")
    callables = {
        (name, jit): own_step(options, x, y, jit)
        for name, options in OWN.items()
        for jit in compilations
    }
    for side, package in PEERS.items():
        # GeoTorch needs both.
        if all(map(importlib.util.find_spec, ("torch", package))):
            callables[side, False] = peer_step(side, x, y)
        else:
            print(f"{side}: {package} is not installed (extra `peers`).\n")
    medians = median_seconds(callables, repeats)
    best = {}
    for (name, jit), value in medians.items():
        best[name] = min(best.get(name, (value, jit)), (value, jit))
    fastest = min((best[side][0] for side in PEERS if side in best), default=0)
    print("| side | ms | time / fastest peer | goal |\n|---|---|---|---|")
    for name, (value, jit) in best.items():
        ratio = f"**{value / fastest:.2f}**" if fastest else ""
        goal = f"≤ {GOAL}" if name in OWN else ""
        print(
            f"| {name} | {value * 1e3:.1f}{' xla' * jit} | {ratio} | {goal} |",
            flush=True,
        )
