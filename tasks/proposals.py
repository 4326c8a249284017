"""What optimize and tune tell of the designs that were proposed, as tables in the user's direction."""

from typing import Any

from surrogate_core.dataset import STATUSES, Dataset
from surrogate_core.refinement import Refinement


def proposals(found: Refinement, sign: float) -> list[dict[str, Any]]:
    """A row for each evaluation: what the surrogate predicted before it was measured, in the user's direction.

    No name is one of `rounds`: DVC's plots join all tables of a file, row by row.
    """
    table = []
    for number, one in enumerate(found.rounds):
        for i in range(one.rows.n_samples):
            lower, upper = sorted((sign * one.lower[i], sign * one.upper[i]))
            ok = one.rows.status[i] == "ok"
            table.append(
                {
                    "proposed_in": number + 1,
                    "kappa": float(one.kappa[i]),
                    "extrapolation": float(one.extrapolation[i]),
                    "predicted": float(sign * one.predicted[i]),
                    "predicted_lower": float(lower),
                    "predicted_upper": float(upper),
                    "objective": float(sign * one.rows.y[i]) if ok else None,
                    "reason": str(one.rows.reason[i]),
                    "params": one.rows.space.params(one.rows.X[i]),
                }
            )
    return table


def rounds(table: list[dict[str, Any]], dataset: Dataset, sign: float) -> list[dict[str, Any]]:
    """A row a round: the promise of its first proposal, which follows the prediction alone, and the best so far."""
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
    if pending and table and sign * table[0]["predicted"] < best_sample:
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
