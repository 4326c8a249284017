"""Every row is predicted by a fit that has not seen it: by folds, for any surrogate, or in closed form."""

import jax
import numpy as np

from surrogate_core.blas import one_blas_thread
from surrogate_core.dataset import Dataset
from surrogate_core.execution import ExecutorSpec, map_calls
from surrogate_core.parallel import in_threads
from surrogate_core.performance.profiler import timed
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.few_rows import Distances, shared
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.validation.held_out import HeldOut
from surrogate_core.validation.metrics import finite

FOLDS = 5  # by which a surrogate is judged where nobody says how many


class Folds:
    """The ok rows of a dataset, shuffled into parts, each of which is predicted by a fit to the others.

    Specs that are compared on the same folds are compared pair by pair. What does not depend on the spec (the parts,
    the distances within each) is computed once for all of them.

    Args:
        dataset: at least `folds` ok rows.
        folds: how many parts.
        seed: of the shuffle and of the fits; the same dataset, folds and seed give the same parts for every spec.

    Raises:
        ValueError: fewer ok rows than folds.
    """

    def __init__(self, dataset: Dataset, folds: int, seed: int) -> None:
        from sklearn.model_selection import KFold  # takes a second to import

        self.rows = dataset.ok
        if not 2 <= folds <= self.rows.n_samples:
            raise ValueError(f"folds: expected an integer from 2 to the {self.rows.n_samples} ok rows, got {folds}")
        splits = KFold(folds, shuffle=True, random_state=seed).split(self.rows.X)
        self._seed, self._parts = seed, [(self.rows.take(train), held) for train, held in splits]
        self._distances = Distances()

    def __len__(self) -> int:
        return len(self._parts)

    def nlpd(self, spec: Surrogate, i: int) -> float:
        """The mean negative log density of part i.

        Raises:
            ValueError: the spec cannot fit the other parts.
        """
        held = self._parts[i][1]
        return finite(-np.mean(self._predictive(spec, i)[1].log_density(self.rows.y[held])))

    def held_out(self, spec: Surrogate, n_workers: int | None = None, executor: ExecutorSpec | None = None) -> HeldOut:
        """All parts; arguments as of `cross_validate`."""
        has_gradients = self.rows.gradients is not None

        def predict(i: int) -> tuple[Predictive, np.ndarray, np.ndarray | None]:
            fitted, predictive = self._predictive(spec, i)
            X = self.rows.X[self._parts[i][1]]
            return predictive, fitted.extrapolation(X), fitted.gradient(X) if has_gradients else None

        if executor is None:
            told = in_threads(predict, range(len(self)), n_workers, self.rows.n_samples)
        else:
            told = map_calls(predict, range(len(self)), executor)
        held_rows = [held for _, held in self._parts]
        back = np.argsort(np.concatenate(held_rows))
        fold = np.repeat(np.arange(len(self)), [len(held) for held in held_rows])[back]
        predictives, extrapolation, gradients = zip(*told, strict=True)
        return HeldOut(
            self.rows,
            fold,
            tuple(zip(held_rows, predictives, strict=True)),
            np.concatenate(extrapolation)[back],
            np.concatenate(gradients)[back] if has_gradients else None,
        )

    def _predictive(self, spec: Surrogate, i: int) -> tuple[FittedSurrogate, Predictive]:
        train, held = self._parts[i]
        with one_blas_thread(), shared(self._distances):
            fitted = spec.fit(train, jax.random.fold_in(jax.random.key(self._seed), i))
        noise = self.rows.noise
        return fitted, fitted.predictive(self.rows.X[held], None if noise is None else noise[held])


@timed("cross_validate")
def cross_validate(
    spec: Surrogate,
    dataset: Dataset,
    folds: int,
    seed: int,
    n_workers: int | None = None,
    executor: ExecutorSpec | None = None,
) -> HeldOut:
    """Fits the spec once a fold, the folds in threads where that is faster.

    Args:
        spec: the surrogate.
        dataset: at least `folds` ok rows.
        folds: how many parts the rows are shuffled into.
        seed: of the shuffle and of the fits; the same dataset, folds and seed give the same parts for every spec.
        n_workers: threads, which change no bit; by default one for each usable CPU.
        executor: where the folds are fitted instead, such as in processes.

    Raises:
        ValueError: fewer ok rows than folds, or the spec cannot fit the data.
    """
    return Folds(dataset, folds, seed).held_out(spec, n_workers, executor)


def held_out_r2(spec: Surrogate, rows: Dataset, seed: int) -> float | None:
    """Share of the variance of held-out values that a spec explains, by FOLDS or fewer; None of a single row."""
    folds = min(FOLDS, rows.n_samples)
    return cross_validate(spec, rows, folds, seed).metrics["r2"] if folds > 1 else None


@timed("leave_one_out")
def leave_one_out(fitted: FittedSurrogate, dataset: Dataset) -> HeldOut | None:
    """Every ok row by itself in a fold, without another fit: hyperparameters stay what all rows made them.

    Args:
        fitted: None comes of one that knows no closed form.
        dataset: the rows that it was fitted to; at least two are ok.

    Raises:
        ValueError: there are fewer rows.
    """
    rows = dataset.ok
    if rows.n_samples < 2:
        raise ValueError(f"leave_one_out: expected at least 2 ok rows, got {rows.n_samples}")
    number, predictive = np.arange(rows.n_samples), fitted.spec.leave_one_out(fitted, rows)
    return None if predictive is None else HeldOut(rows, number, ((number, predictive),))
