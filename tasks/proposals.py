"""What optimize and tune tell of the designs that were proposed, as tables in the user's direction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from surrogate_core.acquisition import Goal
from surrogate_core.dataset import STATUSES, Dataset
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.optimizers.status import Status
from surrogate_core.refinement import Refinement
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.output import from_latent
from surrogate_core.trust import EVEN, Promise, assess, assess_measured, disappointment
from tasks.problem import Problem

_PROMISED = (
    *("predicted", "predicted_lower", "predicted_upper"),
    *("corrected", "corrected_lower", "corrected_upper"),
)


def proposals(
    found: Refinement, dataset: Dataset, sign: float, r2: float, errors: Sequence[float] = ()
) -> list[dict[str, Any]]:
    """A row for each evaluation: what the surrogate predicted before it was measured, in the user's direction.

    No name is one of `rounds`: DVC's plots join all tables of a file, row by row.

    Args:
        found: the rounds.
        dataset: the rows before.
        sign: -1 where the problem maximizes.
        r2: of held-out values.
        errors: of designs that were promised and measured before; see `disappointment`.
    """
    table, errors, best = [], list(errors), dataset.ok.y.min()
    for number, one in enumerate(found.rounds):
        known = disappointment(r2, errors, -one.kappa)
        promise, probability = Promise.of(one.expected, known, sign), known.probability(one.expected, best)
        for i in range(one.rows.n_samples):
            ok = one.rows.status[i] == "ok"
            table.append(
                {
                    "proposed_in": number + 1,
                    "kappa": float(one.kappa[i]),
                    "extrapolation": float(one.extrapolation[i]),
                    "predicted": float(promise.predicted[i]),
                    "predicted_lower": float(promise.lower[i]),
                    "predicted_upper": float(promise.upper[i]),
                    "probability": float(probability[i]),
                    "corrected": float(promise.corrected[i]),
                    "corrected_lower": float(promise.corrected_lower[i]),
                    "corrected_upper": float(promise.corrected_upper[i]),
                    "objective": float(sign * one.rows.y[i]) if ok else None,
                    "standardized_error": float(one.errors[i]) if ok else None,
                    "reason": str(one.rows.reason[i]),
                    "params": one.rows.space.params(one.rows.X[i]),
                }
            )
        errors += one.errors[one.rows.status == "ok"].tolist()
        best = min([best, *one.rows.ok.y])
    return table


def errors_of(table: Sequence[Mapping[str, Any]]) -> list[float]:
    """Standardized errors of the proposals that were measured, in their order."""
    return [row["standardized_error"] for row in table if row["standardized_error"] is not None]


def promise_in(row: Mapping[str, Any]) -> Promise:
    """What a row of `proposals` tells of its promise."""
    return Promise(*(row[name] for name in _PROMISED))


def report_of_trust(
    fitted: FittedSurrogate,
    final: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]],
    *,
    r2: float,
    searched: OptimizationResult,
    problem: Problem,
) -> dict[str, Any]:
    """How far the design that a stage came to can be believed, or, where nothing is measured, that which it proposed.

    Args:
        fitted: to all that was measured.
        final: the `outcome`.
        table: all `proposals` so far.
        r2: of held-out values.
        searched: where starts lead on the fitted surrogate.
        problem: whether anything is measured, and which way is better.
    """
    known: dict[str, Any] = {"r2": r2, "errors": errors_of(table), "sign": problem.sign}
    best, is_found = final["best_sample"]["measured"], final["found_by"] == "surrogate"
    if problem.is_offline and table:
        x = fitted.space.point(table[0]["params"])
        known["agreement"] = searched.agreement_at(x, fitted.space)
        told = assess(fitted, x, best=problem.sign * best, kappa=-table[0]["kappa"], **known)
        if not is_found:  # its numbers are of another design than that which stays
            told = replace(told, why=f"of the design that was proposed, {told.why}", promise=None, extrapolation=None)
            told = replace(told, gradient_norm=None, hessian_condition=None, agreement=None)
        return told.to_dict()
    x = fitted.space.point(final["params"])
    known |= {"agreement": searched.agreement_at(x, fitted.space), "extrapolation": final["extrapolation"]}
    chosen = next((one for one in table if one["params"] == final["params"]), None) if is_found else None
    promise = None if chosen is None else promise_in(chosen)
    return assess_measured(fitted, x, promise, final["measured"], best=best, **known).to_dict()


def search_report(searched: OptimizationResult, fitted: FittedSurrogate, goal: Goal, sign: float) -> dict[str, Any]:
    """Where the starts of a search led on a surrogate: the distinct optima, and how each start went.

    What was minimized is told in the problem's units and direction, but for expected improvements. Lists of plain
    values rather than tables, which DVC's plots would join to the others.
    """
    paths, optima, space = searched.paths, searched.optima, fitted.space
    assert paths is not None
    losses = np.asarray(paths.losses)
    if not goal.name.endswith("expected_improvement"):  # those are told negated, as they were minimized
        losses = sign * from_latent(fitted.spec.transform, fitted.state.output, losses)
    ends = zip(losses.tolist(), paths.n_evaluations, strict=True)
    return {
        "goal": asdict(goal),
        "optima": {
            "params": [space.params(one.x) for one in optima],
            "predicted": [sign * one.predicted for one in optima],
            "uncertainty": [one.uncertainty for one in optima],
            "n_starts": [one.n_starts for one in optima],
        },
        "losses": [[loss if math.isfinite(loss) else None for loss in row[:n]] for row, n in ends],
        "statuses": [Status(int(status)).name.lower() for status in paths.status],
    }


def rounds(table: list[dict[str, Any]], dataset: Dataset, sign: float) -> list[dict[str, Any]]:
    """A row a round: the promise of its first proposal, the minimizer of the goal, and the best so far."""
    best = dataset.y[dataset.best_index]
    made = []
    for number in dict.fromkeys(row["proposed_in"] for row in table):
        rows = [row for row in table if row["proposed_in"] == number]
        best = min([best, *(sign * row["objective"] for row in rows if row["objective"] is not None)])
        told = {"round": number, **_promise(rows[0]), "measured": rows[0]["objective"]}
        made.append({**told, "best_so_far": float(sign * best)})
    return made


def design(dataset: Dataset, sign: float) -> dict[str, Any]:
    best = dataset.best_index
    return {"params": dataset.space.params(dataset.X[best]), "measured": float(sign * dataset.y[best])}


def outcome(samples: Dataset, new: Dataset, table: list[dict[str, Any]], sign: float) -> dict[str, Any]:
    """The best design of all that was measured, what was promised of it, and what it gained on the best sample.

    `extrapolation` is how far from the data the design was when it was proposed.
    """
    best_sample = samples.y[samples.best_index]
    ok, pending = (new.status == "ok").any(), (new.status == "pending").all()
    if pending and table and table[0]["probability"] >= EVEN:
        return {
            "found_by": "surrogate",
            **_promise(table[0]),
            "extrapolation": table[0]["extrapolation"],
            "params": table[0]["params"],
            "measured": None,
            "gain": None,
        }
    if not ok or new.y[new.best_index] >= best_sample:
        return {"found_by": "collect", "promised": None, "extrapolation": None, **design(samples, sign), "gain": 0.0}
    row = table[new.best_index]
    best = new.y[new.best_index]
    gain = float((best_sample - best) / abs(best_sample)) if best_sample else None
    told = {"found_by": "surrogate", **_promise(row), "extrapolation": row["extrapolation"]}
    return {**told, **design(new, sign), "gain": gain}


def counts(rows: Dataset) -> dict[str, int]:
    """How many rows were evaluated, and how many gave nothing to learn from."""
    n = {status: int((rows.status == status).sum()) for status in STATUSES}
    return {
        "n_evaluations": rows.n_samples - n["pending"],
        "n_failed": n["failed"],
        "n_infeasible": n["infeasible"],
    }


def _promise(row: dict[str, Any]) -> dict[str, float]:
    """What a row of `proposals` promised."""
    return {"promised": row["predicted"], "lower": row["predicted_lower"], "upper": row["predicted_upper"]}
