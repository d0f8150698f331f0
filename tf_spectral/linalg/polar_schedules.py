"""Odd polynomials whose composition takes singular values to one.

A step `s -> s h(s^2)` is the best odd polynomial of its degree on the interval
`[low, high]` it expects: it minimises `max |1 - s h(s^2)|` (a linear program
on a fine grid; the error alternates between its extremes, which a test
checks). Its error `e` gives the next interval, `[1 - e, 1 + e]`. Taking the
best step each time makes the best composition (Amsel et al., "The Polar
Express", 2025, theorem 3.1).

Each interval is wider than its predecessor's error asks by 0.1% for rounding
within a stage and 2% at the start of a stage: one rounding of the Gram matrix
moves the small singular values by up to `u (slope / s)^2`.

Degree 9 is the cheapest: `h` is a quartic in the Gram matrix, two products
like the quadratic of degree 5, and two or three more for its use.
"""

from typing import NamedTuple


class Step(NamedTuple):
    """One odd polynomial, lowest power first, and the interval it expects."""

    low: float
    high: float
    coefficients: tuple


class Schedule(NamedTuple):
    """Steps in stages; a stage may run on one Gram matrix.

    `peak` is at least the largest value of the composition on [0, 1]: the
    result is divided by it. It includes 1e-4 for rounding. `low` is the
    singular value, relative to the scale, from which on the result is close
    to one.
    """

    stages: tuple
    peak: float
    low: float


# Step 1 to 6 of math 1.2 and a cubic one: it expects 1 +- 1.2e-3 and its
# maximum is exactly one, so nothing is to be divided by.
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.5, -0.5),
)
HIGH = Schedule(
    stages=tuple((Step(0.0, 2.0, c),) for c in _POLAR_EXPRESS),
    peak=1.0,
    low=1e-3,
)

# Nuclear norm to 1% for the gradients of a small logistic network, whose tail
# of singular values between 1e-4 and 5e-3 holds a tenth of it.
STANDARD = Schedule(
    stages=(
        (
            Step(
                0.0008,
                1.0,
                (
                    15.10407089,
                    -148.4405121,
                    494.497409,
                    -635.9398284,
                    276.7667773,
                ),
            ),
            Step(
                0.01207117345,
                1.98990466,
                (
                    7.235272765,
                    -17.66185871,
                    14.78630949,
                    -4.790985345,
                    0.5258423597,
                ),
            ),
        ),
        (
            Step(
                0.08556102323,
                1.95094669,
                (
                    5.521915388,
                    -12.38593613,
                    10.37495137,
                    -3.431030733,
                    0.3873462301,
                ),
            ),
            Step(
                0.4642854296,
                1.53678507,
                (
                    2.254900176,
                    -1.62602986,
                    0.4133590164,
                ),
            ),
            Step(
                0.8922058783,
                1.108007924,
                (
                    1.887190931,
                    -1.263296618,
                    0.3761717173,
                ),
            ),
        ),
    ),
    peak=1.000788 * (1 + 1e-4),
    low=0.0008,
)

# Five products. A smaller `low` gains less from the tail than it loses at
# the top: this one gives the largest worst case.
FAST = Schedule(
    stages=(
        (
            Step(0.15, 1.0, (4.811113499, -10.84869036, 7.351965877)),
            Step(
                0.6849253738,
                1.315703404,
                (1.987938272, -1.369820668, 0.3866942328),
            ),
        ),
    ),
    peak=1.020265 * (1 + 1e-4),
    low=0.15,
)

SCHEDULES = {"high": HIGH, "standard": STANDARD, "fast": FAST}
