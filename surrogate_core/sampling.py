"""Initial designs: where to evaluate the black box before anything is known. Points of the unit cube, (n, d)."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np

from surrogate_core.space import SearchSpace

MOST_DRAWN = 2**18
"""Points among which those that meet the constraints are looked for."""

Sampling = Literal["sobol", "latin_hypercube", "random", "grid"]


def sample(sampling: Sampling, n_samples: int, n_dims: int, seed: int) -> np.ndarray:
    """Points of the unit cube by the named design.

    Args:
        sampling: "sobol" (scrambled; Owen 1998), "latin_hypercube" (McKay et al. 1979), "random" or "grid".
        n_samples: how many points; a grid has at most so many, as its sides are whole.
        n_dims: the dimension d.
        seed: fixes every bit; a grid has no use for it.

    Returns:
        (n_samples, d) in [0, 1].

    Raises:
        ValueError: an unknown design or no points asked for.
    """
    if sampling not in _DESIGNS:
        raise ValueError(f"sampling: expected one of {', '.join(get_args(Sampling))}, got {sampling!r}")
    if n_samples < 1:
        raise ValueError(f"n_samples: expected an integer >= 1, got {n_samples!r}")
    return _DESIGNS[sampling](n_samples, n_dims, seed)


def feasible_sample(
    space: SearchSpace, sampling: Sampling, n_samples: int, seed: int, box: np.ndarray | None = None
) -> np.ndarray:
    """The first points of a design that meet the space's constraints, none twice; often those of `sample`.

    Args:
        space, sampling, n_samples, seed: of the design.
        box: (d, 2) unit-cube bounds that it is within; by default the cube.

    Returns:
        (n, d) in [0, 1]; n is below n_samples for a grid, where a space has fewer points, and where so few meet the
        constraints among as many as are looked at.
    """
    low, high = (0.0, 1.0) if box is None else box.T
    is_discrete = np.isfinite(space.n_points)
    if not space.constraints and not is_discrete:
        return low + sample(sampling, n_samples, space.n_dims, seed) * (high - low)
    n, n_seen, meets = n_samples, 0, np.empty((0, space.n_dims))
    while n <= max(MOST_DRAWN, n_samples):
        U = low + sample(sampling, n, space.n_dims, seed) * (high - low)
        X = space.decode(U)
        if is_discrete:
            new = np.sort(np.unique(X, axis=0, return_index=True)[1])
            U, X = U[new], X[new]
        if len(X) == n_seen:  # these are all
            break
        n_seen = len(X)
        meets = U[space.is_feasible(X)] if space.constraints else U
        if len(meets) >= n_samples or n_seen == space.n_points or (sampling == "grid" and len(meets)):
            break
        n *= 4
    return meets[:n_samples]


def sample_in_parts(sampling: Sampling, part: int, n_dims: int, seed: int) -> Iterator[np.ndarray]:
    """The points of `sample`, as many as are asked for, a part after the other.

    Args:
        sampling: "sobol" or "random", whose first points are the same however many there are.
        part: how many points a part has; of "sobol" the next lower power of two.
        n_dims, seed: of the design.

    Raises:
        ValueError: the design is another one, or part is below 1.
    """
    if sampling not in ("sobol", "random"):
        raise ValueError(f"sampling: expected 'sobol' or 'random', whose points come one by one, got {sampling!r}")
    if part < 1:
        raise ValueError(f"chunk_size: expected an integer >= 1, got {part!r}")
    if sampling == "random":
        generator = np.random.default_rng(seed)
        while True:
            yield generator.random((part, n_dims))
    from scipy.stats import qmc

    sequence = qmc.Sobol(n_dims, scramble=True, rng=seed)
    while True:
        yield sequence.random(2 ** (part.bit_length() - 1))


def _sobol(n: int, d: int, seed: int) -> np.ndarray:
    from scipy.stats import qmc  # takes a second to import

    # Drawn to the next power of two: the same first n points as any other draw, without scipy's warning on balance.
    return qmc.Sobol(d, scramble=True, rng=seed).random_base2(max(0, (n - 1).bit_length()))[:n]


def _latin_hypercube(n: int, d: int, seed: int) -> np.ndarray:
    from scipy.stats import qmc

    return qmc.LatinHypercube(d, rng=seed).random(n)


def _random(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, d))


def _grid(n: int, d: int, seed: int) -> np.ndarray:
    sides = [1] * d
    while True:
        shortest = int(np.argmin(sides))
        longer = [side + (i == shortest) for i, side in enumerate(sides)]
        if np.prod([float(side) for side in longer]) > n:
            break
        sides = longer
    axes = [np.linspace(0, 1, side) if side > 1 else np.array([0.5]) for side in sides]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)


_DESIGNS: dict[str, Callable[[int, int, int], np.ndarray]] = {
    "sobol": _sobol,
    "latin_hypercube": _latin_hypercube,
    "random": _random,
    "grid": _grid,
}
