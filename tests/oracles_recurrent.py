"""Float64 oracles of the recurrent bounds, loops written from math.md 5.

Keras orientation; one sequence at a time, averaged at the end.
"""

import numpy as np

from tests.oracles_bounds import ACTIVATIONS
from tests.oracles_bounds import FUNCTIONS
from tests.oracles_bounds import erf

BLOCKS = ("input", "recurrent", "bias", "initial_state")


def silu_parts():
    f, f1, f2 = FUNCTIONS["sigmoid"]
    return (
        lambda x: x * f(x),
        lambda x: f(x) + x * f1(x),
        lambda x: 2 * f1(x) + x * f2(x),
    )


# f, f', f'': those of the feed-forward oracles and the rest.
PARTS = FUNCTIONS | {
    "silu": silu_parts(),
    "erf": (
        erf,
        lambda x: 2 / np.pi**0.5 * np.exp(-x * x),
        lambda x: -4 / np.pi**0.5 * x * np.exp(-x * x),
    ),
}


class Rnn:
    """A network and one sequence: `z`, states and softmax errors."""

    def __init__(self, weights, x, y, f="tanh", outputs="all"):
        self.w, self.x, self.y, self.f = dict(weights), x, y, f
        steps = len(x)
        self.omega = np.full(steps, 1 / steps)
        if outputs == "last":
            self.omega = np.eye(steps)[-1]
        w = self.w
        self.s, self.z, self.o = [w["initial_state"]], [None], []
        for x_t in x:
            z = x_t @ w["input"] + self.s[-1] @ w["recurrent"] + w["bias"]
            self.z.append(z)
            self.s.append(PARTS[f][0](z))
            self.o.append(self.s[-1] @ w["output"] + w["output_bias"])
        self.p = [np.exp(o - o.max()) for o in self.o]
        self.p = [p / p.sum() for p in self.p]

    def loss(self):
        terms = [
            o.max() + np.log(np.exp(o - o.max()).sum()) - y @ o
            for o, y in zip(self.o, self.y)
        ]
        return self.omega @ terms

    def slopes(self, t):
        _, f1, f2 = PARTS[self.f]
        return f1(self.z[t]), f2(self.z[t])

    def jets(self, name):
        """First and second derivatives of all logits by one weight."""
        w, h = self.w, len(self.w["bias"])
        shape = w[name].shape
        m = int(np.prod(shape))
        ds, dds = np.zeros((m, h)), np.zeros((m, m, h))
        if name == "initial_state":
            ds = np.eye(h)
        out = []
        for t in range(1, len(self.x) + 1):
            dz, ddz = ds @ w["recurrent"], dds @ w["recurrent"]
            if name == "input":
                dz = dz + np.kron(self.x[t - 1][:, None], np.eye(h))
            elif name == "bias":
                dz = dz + np.eye(h)
            elif name == "recurrent":
                dz = dz + np.kron(self.s[t - 1][:, None], np.eye(h))
                own = np.zeros((m, m, h))
                for i in range(h):
                    for j in range(h):
                        # R_ij multiplies s_i in unit j.
                        own[i * h + j, :, j] += ds[:, i]
                ddz = ddz + own + own.transpose(1, 0, 2)
            lam, bend = self.slopes(t)
            ds = lam * dz
            dds = bend * dz[:, None] * dz[None] + lam * ddz
            out.append((ds @ w["output"], dds @ w["output"]))
        return out

    def derivatives(self, name):
        """Gradient `shape` and Hessian `(m, m)` of the loss."""
        if name in ("output", "output_bias"):
            return self._output_derivatives(name)
        gradient, hessian = 0.0, 0.0
        for t, (d, dd) in enumerate(self.jets(name)):
            p, omega = self.p[t], self.omega[t]
            error = p - self.y[t]
            cov = np.diag(p) - np.outer(p, p)
            gradient = gradient + omega * d @ error
            hessian = hessian + omega * (d @ cov @ d.T + dd @ error)
        return gradient.reshape(self.w[name].shape), hessian

    def _output_derivatives(self, name):
        k = len(self.p[0])
        gradient, hessian = 0.0, 0.0
        for t, p in enumerate(self.p):
            row = self.s[t + 1] if name == "output" else np.ones(1)
            d = np.kron(row[:, None], np.eye(k))
            cov = np.diag(p) - np.outer(p, p)
            gradient = gradient + self.omega[t] * d @ (p - self.y[t])
            hessian = hessian + self.omega[t] * d @ cov @ d.T
        return gradient.reshape(self.w[name].shape), hessian


def nuclear(m):
    return np.linalg.svd(m, compute_uv=False).sum()


def local(net, tier, residual=False):
    """The constants of math 5.5, or 5.4 for `"paper"`, by block."""
    return {b: _local_block(net, b, tier, residual) for b in BLOCKS} | {
        "output": sum(
            o * s @ s for o, s in zip(net.omega, net.s[1:], strict=True)
        ),
        "output_bias": 1.0,
    }


def _local_block(net, block, tier, residual):
    w, v = net.w["recurrent"].T, net.w["output"].T
    h = len(w)
    total = 0.0
    columns = {"input": net.x.shape[1], "recurrent": h}.get(block, 1)
    # tensor[i, j, q]
    tensor = np.zeros((h, columns, h))
    rho, beta = np.zeros(h), np.zeros(h)
    if block == "initial_state":
        tensor[:, 0] = np.eye(h)
        rho = np.ones(h)
    for t in range(1, len(net.x) + 1):
        own = {
            "input": net.x[t - 1],
            "recurrent": net.s[t - 1],
            "bias": np.ones(1),
        }.get(block, np.zeros(1))
        lam, bend = net.slopes(t)
        z = np.einsum("iq,j->ijq", np.eye(h), own) + tensor @ w.T
        before = rho
        if tier == "vector":
            zeta = np.linalg.norm(own) + np.abs(w) @ rho
            if block == "initial_state" and t == 1:
                zeta = np.linalg.norm(w, axis=1)
        else:
            zeta = np.array([nuclear(z[:, :, q]) for q in range(h)])
        tensor = z * lam
        rho = np.abs(lam) * zeta
        cross = 2 * np.linalg.norm(before) if block == "recurrent" else 0.0
        if tier == "vector":
            a = max(np.abs(row) @ rho for row in v)
        else:
            a = max(nuclear(tensor @ row) for row in v)
        if tier == "paper":
            vmax = np.linalg.norm(v, axis=1).max()
            size = np.linalg.norm(before)
            b = np.linalg.norm(own) + np.linalg.norm(w, 2) * size
            b = b * np.max(np.abs(bend) * zeta) + cross * np.abs(lam).max()
            total += net.omega[t - 1] * 2 * (a * a / 2 + vmax * b)
            continue
        beta = np.abs(bend) * zeta**2 + np.abs(lam) * (cross + np.abs(w) @ beta)
        second = 2 * max(np.abs(row) @ beta for row in v)
        if residual:
            second = np.abs(v.T @ (net.p[t - 1] - net.y[t - 1])) @ beta
        total += net.omega[t - 1] * (a * a + second)
    return total


def rigorous(net, radius, growth=1.0, stretch=1.0):
    """The constants of math 5.6; `stretch` multiplies `||W||`."""
    sup, s1, s2, zero = ACTIVATIONS[net.f]
    h = len(net.w["bias"])
    vmax = np.linalg.norm(net.w["output"], axis=0).max()
    norm = np.linalg.norm
    result = {}
    for block in BLOCKS:
        w = norm(net.w["recurrent"], 2) * stretch
        w += radius if block == "recurrent" else 0.0
        q = 1.0 if block == "initial_state" else 0.0
        b, total, state = 0.0, 0.0, norm(net.w["initial_state"])
        for t, x in enumerate(net.x):
            own = {"input": norm(x), "recurrent": state, "bias": 1.0}
            zeta = own.get(block, 0.0) + w * q
            cross = 2 * q if block == "recurrent" else 0.0
            b = s2 * zeta**2 + s1 * (cross + w * b)
            q = s1 * zeta
            total += net.omega[t] * (vmax**2 * q**2 + 2 * vmax * b)
            inputs = norm(x @ net.w["input"]) + norm(net.w["bias"])
            state = zero * h**0.5 + s1 * (w * state + inputs)
            if sup is not None:
                state = sup * h**0.5
        result[block] = total
    return result


def loss_bound(net, moved, name):
    """Right side of (7), math 5.2, for a step in one weight."""
    step = (moved.w[name] - net.w[name]).ravel()
    if name in ("output", "output_bias"):
        k = len(net.p[0])
        rows = net.s[1:] if name == "output" else [np.ones(1)] * len(net.x)
        linear = [step @ np.kron(r[:, None], np.eye(k)) for r in rows]
    else:
        linear = [step @ d for d, _ in net.jets(name)]
    total = net.loss()
    for t, omega in enumerate(net.omega):
        change = moved.o[t] - net.o[t]
        rest = change - linear[t]
        total += omega * (net.p[t] - net.y[t]) @ linear[t]
        total += omega * np.abs(change).max() ** 2 / 2
        total += omega * 2 * np.abs(rest).max()
    return total


def sharpest(hessian, shape, rng, starts=3, rounds=5):
    """A lower estimate of `sup <D, H D>` over `||D||_2 <= 1`."""
    best = 0.0
    for _ in range(starts):
        d = polar(rng.normal(size=shape))
        for _ in range(rounds):
            best = max(best, d.ravel() @ hessian @ d.ravel())
            # A shift makes the iteration climb to the positive end.
            shift = max(0.0, -np.linalg.eigvalsh(hessian)[0])
            d = polar((hessian @ d.ravel()).reshape(shape) + shift * d)
    return best


def polar(g):
    if g.ndim == 1:
        return g / max(np.linalg.norm(g), 1e-300)
    a, _, b = np.linalg.svd(g, full_matrices=False)
    return a @ b
