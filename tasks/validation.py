"""The stage validate: how far the model can be trusted, as numbers, tables and verdicts."""

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from surrogate_core.atomic import write_file
from surrogate_core.constraints import ConstraintFailed
from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.validation import gradient_check as check
from surrogate_core.validation.calibration import Recalibration, recalibration
from surrogate_core.validation.cross_validation import cross_validate, leave_one_out
from surrogate_core.validation.extrapolation import extrapolation_share
from surrogate_core.validation.finite_differences import stencil
from surrogate_core.validation.gates import judge
from surrogate_core.validation.gradient_agreement import GradientAgreement, agreement_at, held_out_agreement
from surrogate_core.validation.held_out import HeldOut
from surrogate_core.validation.learning_curve import LEAST, LearningCurve, learning_curve
from surrogate_core.validation.metrics import finite
from surrogate_core.validation.sensitivity import SobolIndices, relevances, sobol_indices
from tasks.errors import StageFailed
from tasks.evaluations import Progress, evaluation
from tasks.files import StageFiles
from tasks.keys import DATASET, MODEL, VALIDATION
from tasks.machine import machine
from tasks.outputs import read_dataset, read_model, specs, to_json
from tasks.proposals import counts
from tasks.settings import canonical
from tasks.workspace import Workspace

Section = dict[str, Any]


def validate(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Cross-validates the model's spec, looks at what the model claims, and judges it by the gates.

    No table has a column of another's name: DVC's plots join all tables of a file, row by row.
    """
    settings, asked = workspace.settings, workspace.settings.validate
    fitted, dataset = read_model(workspace, MODEL), read_dataset(workspace, DATASET)
    _check_folds(dataset, asked.folds)
    sign, n_threads = settings.problem.sign, settings.execution.n_threads
    held_out = cross_validate(fitted.asked, dataset, asked.folds, asked.seed, n_threads)
    stretch = recalibration(held_out)
    left_out = leave_one_out(fitted, dataset)
    curve = None
    if asked.learning_curve and dataset.ok.n_samples >= LEAST:
        curve = learning_curve(fitted.asked, dataset, asked.seed, n_workers=n_threads)
    indices = sobol_indices(fitted, asked.seed)
    try:
        beyond = extrapolation_share(fitted, asked.seed)
        gradients = _gradients(workspace, key, progress, fitted, dataset, held_out)
    except ConstraintFailed as error:
        raise StageFailed(f"problem.{error}") from error
    metrics = {
        **held_out.metrics,
        **stretch.metrics,
        **({} if isinstance(gradients, str) else gradients.agreement.metrics),
        **(curve.metrics if curve else {}),
        "extrapolation_share": beyond,
        **indices.metrics,
        **({} if left_out is None else {f"loo_{name}": value for name, value in left_out.metrics.items()}),
    }
    metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
    gates = judge(metrics, settings.gates.bounds)
    report = {
        "metrics": metrics,
        "passed": all(gate.passed for gate in gates),
        "gates": [asdict(gate) for gate in gates],
        "n_rows": dataset.ok.n_samples,
        **specs(fitted),
        "recalibration": {
            "factor": stretch.factor,
            "helps": stretch.helps,
            "used": stretch.helps and asked.recalibrate,
        },
        "gradient": {"why_not": gradients} if isinstance(gradients, str) else gradients.section(fitted, sign),
        "learning_curve": _curve(curve),
        "variables": _variables(indices, relevances(fitted)),
        "held_out": _held_out(stretch, left_out, sign),
    }
    return {VALIDATION: to_json(_filled(report))}


def _check_folds(dataset: Dataset, folds: int) -> None:
    n_ok = dataset.ok.n_samples
    if n_ok < folds:
        failed = f": {dataset.reason[dataset.status != 'ok'][0]}" if n_ok < dataset.n_samples else ""
        raise StageFailed(
            f"validate.folds: expected at most {n_ok}, as so many of {dataset.n_samples} evaluations succeeded, got "
            f"{folds}; collect more, or mend what made them fail and raise problem.version{failed}"
        )


@dataclass(frozen=True, eq=False)
class _Gradients:
    """How predicted gradients agree with true ones at points, all (n, d) in the problem's units.

    Args:
        source: where the truth is from: "rows" or "differences".
        X: the points.
        error: standard errors of the true gradients.
        agreement: of the predicted gradients with the true ones.
        evaluations: of the black box that it took; None for none.
    """

    source: str
    X: np.ndarray
    error: np.ndarray
    agreement: GradientAgreement
    evaluations: Dataset | None = None

    def section(self, fitted: FittedSurrogate, sign: float) -> Section:
        """Slopes are by the width of a variable's range."""
        found, slope = self.agreement, fitted.space.slope(self.X)
        by_u = self.error / np.where(slope > 0, slope, np.inf)
        points = zip(found.cosine, found.relative_error, fitted.extrapolation(self.X), strict=True)
        rows = found.table(fitted.space.names, sign)
        errors = by_u[np.isfinite(found.true)].tolist()
        return {
            "source": self.source,
            **({} if self.evaluations is None else counts(self.evaluations)),
            "points": [
                {
                    "checked": i,
                    "params": fitted.space.params(x),
                    "cosine": _known(c),
                    "off": _known(e),
                    "beyond": float(b),
                }
                for i, (x, (c, e, b)) in enumerate(zip(self.X, points, strict=True))
            ],
            "slopes": [
                {
                    "at": r["point"],
                    "along": r["name"],
                    "slope": r["true"],
                    "slope_error": e,
                    "predicted_slope": r["predicted"],
                }
                for r, e in zip(rows, errors, strict=True)
            ],
        }


def _gradients(
    workspace: Workspace, key: str, progress: Progress, fitted: FittedSurrogate, dataset: Dataset, held_out: HeldOut
) -> _Gradients | str:
    """Of the rows, by fits that had not seen them, or by differences of the true function; or why there are none."""
    settings, space = workspace.settings, dataset.space
    given = held_out_agreement(held_out)
    if given is not None:
        return _Gradients("rows", held_out.rows.X, np.zeros_like(given.true), given)
    budget = settings.validate.gradient_evaluations
    if settings.problem.is_offline:
        return "there is only a table, which has none"
    if budget == 0:
        return "validate.gradient_evaluations is 0"
    if not (space.n_choices == 0).any():
        return "no variable is a number"
    X = check.points_to_check(fitted, dataset, check.points_within(budget, space), settings.validate.seed)
    around = stencil(space, X, check.step_lengths(fitted, X)) if len(X) else None
    if around is None or not len(around.points):
        least = 2 * int((space.n_choices == 0).sum())
        return f"validate.gradient_evaluations is {budget}, and a point takes up to {least}"
    rows = _evaluated(workspace, key, progress, dataset, around.points)
    sigma = check.noise_at(fitted, around.points)
    if rows.noise is not None:
        sigma = np.where(np.isnan(rows.noise), sigma, rows.noise)
    true, error = around.combine(rows.y, sigma)
    return _Gradients("differences", X, error, agreement_at(fitted, X, true, error), rows)


def _evaluated(workspace: Workspace, key: str, progress: Progress, before: Dataset, X: np.ndarray) -> Dataset:
    """Rows of points, which are kept with the cached results: a gate that is moved costs no evaluation."""
    parts = {
        "points": X.tolist(),
        "problem": asdict(workspace.settings.problem),
        "code": workspace.inputs.code,
        "machine": machine(),
        "black_box": workspace.black_box,
    }
    kept = workspace.results / f"gradient-{hashlib.sha256(canonical(parts)).hexdigest()}"
    try:
        return Dataset.from_bytes(kept.read_bytes())
    except (OSError, ValueError):  # there is none, or it is damaged
        pass
    with evaluation(workspace, before.space, "validate", key, before) as evaluate:
        rows = evaluate(X, "gradient", progress, 0, len(X))
    if not workspace.edited(pipeline=False):
        with suppress(OSError):  # it is a convenience
            write_file(kept, rows.to_bytes())
    return rows


def _curve(found: LearningCurve | None) -> Section | None:
    if found is None:
        return None
    scale, exponent, error = found.law
    return {"law": {"scale": scale, "exponent": exponent, "standard_error": error}, "fits": found.table()}


def _variables(indices: SobolIndices, relevance: np.ndarray) -> list[Section]:
    rows = zip(indices.table(), relevance.tolist(), strict=True)
    return [
        {"variable": row["name"], "relevance": share, **{k: row[k] for k in row if k != "name"}} for row, share in rows
    ]


def _held_out(stretch: Recalibration, left_out: HeldOut | None, sign: float) -> list[Section]:
    """The table of held-out rows, with what recalibration makes of each and what is told with it alone left out.

    In the user's direction.
    """

    def turned(cumulative: np.ndarray) -> list[float]:
        return [float(c) for c in (cumulative if sign > 0 else 1 - cumulative)]

    errors = [finite(float(q)) for q in sign * stretch.rows.standardized_error]
    columns = {"recalibrated": turned(stretch.stretched.cumulative), "standardized_error": errors}
    if left_out is not None:
        columns["left_out"] = turned(left_out.cumulative)
    told = stretch.rows.table(sign)
    for name, values in columns.items():
        for row, value in zip(told, values, strict=True):
            row[name] = value
    return told


def _filled(section: Section) -> Section:
    """A section without empty lists, which DVC's plots of the file would fail at."""
    return {name: _filled(v) if isinstance(v, dict) else v for name, v in section.items() if v != []}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
