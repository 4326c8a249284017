"""The ok rows of a dataset as a Gaussian process learns them: in the unit cube, standardized, sorted, repeats merged.

Sorted rows make a fit independent, bit for bit, of the order in which they came. Rows at one place with noise of
unknown size are one row: the mean of their z, with the noise of a mean; what their scatter tells of the noise goes into
the likelihood by itself, so that nothing is lost (Binois, Gramacy & Ludkovski 2018, J. Comput. Graph. Stat. 27, eq. 5).

Notation: N: ok rows; n: places. F: (n, D) are features whose Euclidean distance is that between rows: two choices of a
categorical variable are at distance 1, whichever they are, by an indicator a choice, times sqrt(1/2); of a number its
coordinate. group: (D,) is the variable that each belongs to.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.kernels import choice_at
from surrogate_core.surrogates.output import AnyArray, Output, Transform, fit_output, learned_latent, log_slope

SAME = 1e-8  # unit-cube distance in every coordinate below which rows are at one place
OWN_ERROR = 0.01  # variance of z of a surrogate's own errors, beside which a noise that is given is much or little
LEAST_NOISE = 1e-8  # variance of z that a row given as free of noise has, so that K stays well conditioned


@dataclass(frozen=True, eq=False)
class Training:
    """What is learned.

    Args:
        U: (n, d) places. z: (n,) their mean values. count: (n,) how many rows are there.
        known: (n,) noise variance of z where it is given, NaN where it is to be learned.
        scatter: sum of squared deviations from the means of merged rows, over `repeats` degrees of freedom.
        slopes: (n, d) derivatives of z in the unit cube, NaN where unknown; None where none is known.
        place: (N,) of each ok row of the dataset, in its order; each: (N,) its own z.
        F, group: features of the places. output: the fitted transform. told: what was done to rows that are not as they
            should be.
    """

    U: np.ndarray
    z: np.ndarray
    count: np.ndarray
    known: np.ndarray
    scatter: float
    repeats: int
    slopes: np.ndarray | None
    place: np.ndarray
    each: np.ndarray
    F: np.ndarray
    group: np.ndarray
    output: Output
    told: tuple[str, ...]

    @property
    def weight(self) -> np.ndarray:
        """(n,) of places in a sum of squared errors: repeats weigh more, and what is known to be noisy less."""
        doubt = 1 + np.nan_to_num(self.known, nan=0.0) / OWN_ERROR
        return np.asarray(self.count / doubt)

    @property
    def n_values(self) -> int:
        """Values and derivatives of places."""
        return len(self.z) + (0 if self.slopes is None else int(np.isfinite(self.slopes).sum()))

    def take(self, places: np.ndarray) -> "Training":
        """Some of the places, for a first look: their values alone; `place` and `each` stay those of all."""
        parts = {name: getattr(self, name)[places] for name in ("U", "z", "count", "known", "F")}
        kept = np.isin(self.place, places)
        own = self.each[kept] - self.z[self.place[kept]]
        repeats = int(kept.sum()) - len(places)
        return replace(self, scatter=float(own @ own), repeats=repeats, slopes=None, **parts)


def training(dataset: Dataset, transform: Transform, output: Output | None = None, slopes: bool = True) -> Training:
    """The rows to learn; with an output, z by that fitted transform, else by one fitted to these rows.

    Raises:
        ValueError: no row is ok, or the values do not suit the transform.
    """
    rows = dataset.ok
    if rows.n_samples == 0:
        raise ValueError(f"fit: expected at least one ok row, got none among {dataset.n_samples}")
    U = rows.space.encode(rows.X)
    order = np.lexsort((rows.y, *U.T[::-1]))
    U, y = U[order], rows.y[order]
    told: list[str] = []
    if output is None:
        output, told = fit_output(transform, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = learned_latent(transform, output, y)
    if (unfit := ~np.isfinite(z)).any():
        raise ValueError(f"transform: expected values that suit {transform!r} throughout, got {y[unfit][0]:g}")
    slope = np.exp(log_slope(transform, output, y))
    known = np.full(len(z), np.nan)
    if rows.noise is not None:
        known = np.maximum((rows.noise[order] * slope) ** 2, LEAST_NOISE)
    width, drawn_in = output.high - output.low, np.zeros(len(z), dtype=bool)
    if 0 < width < np.inf:  # an outlier, drawn in, is as uncertain as the range of the others, a third of it, is wide
        drawn_in = (z <= output.low) | (z >= output.high)
        known = np.fmax(known, np.where(drawn_in, (width / 3) ** 2, np.nan))
    G = None
    if slopes and rows.gradients is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            G = rows.gradients[order] * slope[:, None] / rows.space.slope(rows.X[order])
        G[~np.isfinite(G)] = np.nan  # along a categorical variable there is no derivative
        G[drawn_in] = np.nan
        G = None if np.isnan(G).all() else G

    # Rows whose noise or derivatives are given stay by themselves.
    alone = ~np.isnan(known) | (False if G is None else ~np.isnan(G).all(axis=1))
    cell = np.column_stack([np.round(U / SAME), np.where(alone, np.arange(len(U)), -1)])
    _, place = np.unique(cell, axis=0, return_inverse=True)
    first = np.unique(place, return_index=True)[1]
    rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")  # places in the order of the rows
    place = rank[place]
    count = np.bincount(place).astype(float)
    mean = np.bincount(place, z) / count
    firsts = np.sort(first)
    merged = len(U) - len(count)
    if merged:
        told.append(f"{merged} repeated row{'s' * (merged > 1)} merged")
    scatter = float(np.sum((z - mean[place]) ** 2))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    F, group = features(U[firsts], rows.space.n_choices)
    return Training(
        U=U[firsts],
        z=mean,
        count=count,
        known=known[firsts],
        scatter=scatter,
        repeats=merged,
        slopes=None if G is None else G[firsts],
        place=place[back],
        each=z[back],
        F=F,
        group=group,
        output=output,
        told=tuple(told),
    )


def features(U: np.ndarray, n_choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F and group of unit-cube rows."""
    group, choice = columns(n_choices)
    return features_at(np, U, n_choices, group, choice), group


def columns(n_choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each feature, (D,), the variable that it belongs to, and which choice it indicates: -1 where of a number."""
    group = np.repeat(np.arange(len(n_choices)), np.maximum(1, n_choices.astype(int)))
    number = np.concatenate([np.arange(m) if m else [-1] for m in n_choices.astype(int)])
    return group, number.astype(int)


def features_at(xp: Any, U: AnyArray, n_choices: AnyArray, group: AnyArray, choice: AnyArray) -> AnyArray:
    """(..., D) features of points (..., d); differentiable in the coordinates of numbers."""
    u = U[..., group]
    return xp.where(choice < 0, u, xp.sqrt(0.5) * (choice_at(u, n_choices[group], xp) == choice))
