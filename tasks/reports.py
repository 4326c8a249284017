"""A stage's report, read from the files it wrote, so that what MLflow shows cannot disagree with what is on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.space import Categorical, SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate
from tasks import pictures
from tasks.keys import (
    CHAMPION,
    DATASET,
    EVALUATIONS,
    MODEL,
    OPTIMIZED,
    OPTIMUM,
    RECOMMENDATION,
    STAGES,
    TUNED_EVALUATIONS,
    TUNING,
    VALIDATION,
)
from tasks.outputs import read_dataset, read_json, read_model, specs, told_spec
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = dict[str, Callable[[], "Figure"]]
USERS_OWN = "designs"
"""The picture that a function of the user's draws."""


@dataclass(frozen=True)
class Report:
    """Flat metrics, tables, sentences and figure makers of one stage, one line that says how it went, and warnings."""

    stage: str
    line: str
    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_report(stage: str, workspace: Workspace) -> Report:
    """The report of a stage whose files are there.

    Raises:
        BadInput: one of them is missing or damaged.
    """
    return _READERS[stage](workspace)


def is_done(stage: str, workspace: Workspace) -> bool:
    """Whether all that the stage writes is there."""
    return all((workspace.out / path).exists() for path in STAGES[stage].outs)


def recommendation(workspace: Workspace) -> dict[str, Any]:
    """The final answer, as the tune stage wrote it."""
    return read_json(workspace, RECOMMENDATION)


def _collect(workspace: Workspace) -> Report:
    rows = read_dataset(workspace, DATASET)
    sign = workspace.settings.problem.sign
    best = float(sign * rows.y[rows.best_index])
    counts = {status: int((rows.status == status).sum()) for status in ("failed", "infeasible")}
    told = [f", {n} {status} ({rows.reason[rows.status == status][0]})" for status, n in counts.items() if n]
    told += [f"; {line}" if name == "rows" else f"; {name}: {line}" for name, line in rows.metadata.items()]
    metrics = {
        "n_samples": rows.n_samples,
        "n_failed": counts["failed"],
        "n_infeasible": counts["infeasible"],
        "best_sample": best,
        "mean": float(sign * rows.ok.y.mean()),
        "std": float(rows.ok.y.std()),
    }
    return Report("collect", f"{rows.n_samples} samples, the best {best:.4g}{''.join(told)}", metrics)


def _fit(workspace: Workspace) -> Report:
    fitted = read_model(workspace, MODEL)
    told = fitted.diagnostics
    lengthscales = told.get("lengthscales", {})
    metrics = {name: float(value) for name, value in told.items() if isinstance(value, int | float)}
    metrics |= {f"lengthscale.{name}": value for name, value in lengthscales.items()}
    n_rows = read_dataset(workspace, DATASET).ok.n_samples
    line = "; ".join([f"{told_spec(specs(fitted))} on {n_rows} rows", *told.get("fallbacks", [])])
    return Report("fit", line, metrics)


def _validate(workspace: Workspace) -> Report:
    found = read_json(workspace, VALIDATION)
    numbers, gates = found["metrics"], found.get("gates", [])
    told = [f"R² {numbers['r2']:.3f}, 95 % coverage {numbers['coverage_95']:.0%}"]
    if "gradient_cosine" in numbers:
        told.append(f"gradient cosine {numbers['gradient_cosine']:.2f}")
    failed = [
        f"{gate['name']} {gate['bound']:g}{' (not measured)' if gate['value'] is None else ''}"
        for gate in gates
        if not gate["passed"]
    ]
    told.append("FAILED " + ", ".join(failed) if failed else "gates passed" if gates else "no gates")
    metrics = {**numbers, "gates_passed": float(found["passed"])}
    metrics |= _numbers(found["gradient"], ("n_evaluations", "n_failed"))
    for row in found["variables"]:
        metrics |= _numbers(row, ("relevance", "first", "total"), f"{row['variable']}.")
    tables = {"held_out": found["held_out"], "variables": found["variables"]}
    return Report("validate", ", ".join(told), metrics, tables, figures=validation_figures(found))


def validation_figures(found: dict[str, Any]) -> Figures:
    """Makers of those pictures of a validation that there is something to draw for."""
    drawn_of = {
        "parity": found["held_out"],
        "calibration": found["held_out"],
        "gradients": found["gradient"].get("slopes"),
        "learning_curve": found["learning_curve"],
        "sensitivity": found["variables"],
        "reach": found["held_out"],
    }
    return {name: partial(_draw, name, found) for name, of in drawn_of.items() if of}


def _draw(name: str, *of: Any) -> "Figure":
    figure: Figure = getattr(pictures, name)(*of)
    return figure


def _optimize(workspace: Workspace) -> Report:
    found = read_json(workspace, OPTIMUM)
    evaluations = read_dataset(workspace, EVALUATIONS)
    metrics = {**_numbers(found, _OUTCOME), **_numbers(found["trust"], _TRUST, "trust.")}
    if workspace.settings.problem.is_offline:
        kept = f"the best sample stays, {found['measured']:.4g}" if found["measured"] is not None else _outcome(found)
        line = f"{evaluations.n_samples} designs proposed, none measured: there is only a table; {kept}"
    else:
        best_sample, measured = found["best_sample"]["measured"], found["measured"]
        line = f"{evaluations.n_samples} evaluations, {best_sample:.4g} → {measured:.4g}"
    around = {f"optimum_{name}": draw for name, draw in landscape_figures(workspace, found, OPTIMIZED).items()}
    return Report(
        "optimize",
        f"{line}: {found['trust']['verdict']}",
        metrics,
        {"rounds": found["rounds"], "evaluations": found["evaluations"]},
        {"trust": told_trust(found)},
        {**search_figures(workspace, found), **around},
    )


def search_figures(workspace: Workspace, found: dict[str, Any]) -> Figures:
    """Makers of those pictures of the rounds and the last search that there is something to draw for."""
    search, space = found["search"], read_dataset(workspace, DATASET).space
    figures: Figures = {
        "convergence": lambda: pictures.convergence(search, workspace.settings.problem.direction),
        "optima": lambda: pictures.optima(search, space, found["params"]),
    }
    if found["rounds"]:
        figures["rounds"] = lambda: pictures.rounds(found)
    if found["trust"]["n_verified"]:
        figures["promises"] = lambda: pictures.promises(found["evaluations"], found["trust"])
    return figures


def landscape_figures(workspace: Workspace, found: dict[str, Any], model: str) -> Figures:
    """Makers of pictures of what a model predicts around the design that a stage came to."""
    sign, space = workspace.settings.problem.sign, read_dataset(workspace, DATASET).space
    names = ["slices", *["planes"] * has_planes(space), *["gradient_field"] * has_field(space)]

    @cache
    def known() -> tuple[FittedSurrogate, Dataset]:  # read once for all pictures, and only if one is drawn
        rows = read_dataset(workspace, DATASET)
        for path in (EVALUATIONS, TUNED_EVALUATIONS) if model == CHAMPION else (EVALUATIONS,):
            rows = rows.append(read_dataset(workspace, path))
        return read_model(workspace, model), rows

    def draw(name: str) -> "Figure":
        fitted, rows = known()
        return _draw(name, fitted, found["params"], rows, sign)

    return {name: partial(draw, name) for name in names}


def has_planes(space: SearchSpace) -> bool:
    return sum(not isinstance(variable, Categorical) for variable in space.variables) >= 2


def has_field(space: SearchSpace) -> bool:
    return space.n_dims == 2 and all(np.isinf(variable.n_values) for variable in space.variables)


def _tune(workspace: Workspace) -> Report:
    found, final = read_json(workspace, TUNING), recommendation(workspace)
    metrics = {
        "champion.nlpd": found["champion"]["metrics"]["nlpd"],
        "challenger.nlpd": found["challenger"]["metrics"]["nlpd"],
        "challenger_is_better": float(found["challenger_is_better"]),
        "n_trials": len(found["trials"]),
        **_numbers(found, ("n_duplicates", "duplicate_ratio", "degenerate_ratio")),
        **{f"importance.{name}": share for name, share in found["importance"].items()},
        **_numbers(final, _OUTCOME, "final."),
        **_numbers(final["trust"], _TRUST, "trust."),
        "gates_passed": float(final["gates_passed"]),
    }
    verdict = "a better spec" if found["challenger_is_better"] else "the champion stays"
    figures = {**tuning_figures(found), **landscape_figures(workspace, final, CHAMPION)}
    draw = workspace.settings.report.figure_maker
    if draw is not None:
        designs = {"best sample": final["best_sample"]["params"], "optimized design": final["params"]}
        figures[USERS_OWN] = lambda: draw(designs)
    n = len(found["trials"])
    line = f"{n} spec{'s' * (n != 1)}, {verdict}; {_outcome(final)}"
    tables = {"trials": found["trials"], "evaluations": found["evaluations"]}
    line, tags = f"{line}: {final['trust']['verdict']}", {"trust": told_trust(final)}
    return Report("tune", line, metrics, tables, tags, figures, tuple(found["warnings"] or ()))


def tuning_figures(found: dict[str, Any]) -> Figures:
    """Makers of those pictures of the search of specs that there is something to draw for."""
    figures: Figures = {"trials": lambda: pictures.trials(found)}
    if found["importance"]:
        figures["importance"] = lambda: pictures.importance(found["importance"])
    rows, label = study_rows(found["trials"], "nlpd"), "negative log density"
    if sum(row["status"] == "ok" for row in rows) > 1:
        figures["spec_slices"] = lambda: pictures.study_slices(rows, label)
        figures["spec_lines"] = lambda: pictures.parallel_coordinates(rows, "minimize", label)
    return figures


def study_rows(trials: Sequence[Mapping[str, Any]], value: str) -> list[dict[str, Any]]:
    """Trials as pictures of a study take them, of a table with a column a parameter."""
    own = ("number", value, "status", "reason")
    return [
        {
            "number": row["number"],
            "value": row[value],
            "status": row["status"],
            "reason": row["reason"],
            "params": {name: of for name, of in row.items() if name not in own},
        }
        for row in trials
    ]


_OUTCOME = (
    "measured",
    "promised",
    "lower",
    "upper",
    "extrapolation",
    "gain",
    "n_evaluations",
    "n_failed",
    "n_infeasible",
)


_TRUST = (
    "probability",
    "disappointment",
    "corrected",
    "corrected_lower",
    "corrected_upper",
    "n_verified",
    "n_kept",
    "gradient_norm",
    "hessian_condition",
    "agreement",
)


def told_trust(found: Mapping[str, Any]) -> str:
    """The sentence in which the report of trust ends."""
    return f"{found['trust']['verdict']}: {found['trust']['why']}"


def _outcome(found: dict[str, Any]) -> str:
    if found["measured"] is None:
        return f"promised {found['promised']:.4g}, not measured"
    return f"measured {found['measured']:.4g}"


def _numbers(report: dict[str, Any], names: tuple[str, ...], prefix: str = "") -> dict[str, float]:
    return {prefix + name: float(report[name]) for name in names if report.get(name) is not None}


_READERS: dict[str, Callable[[Workspace], Report]] = {
    "collect": _collect,
    "fit": _fit,
    "validate": _validate,
    "optimize": _optimize,
    "tune": _tune,
}
