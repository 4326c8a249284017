"""What the page tells of the validation, in plain words and numbers."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from surrogate_core.validation.gates import HELD_OUT, METRICS
from tasks.keys import VALIDATION
from tasks.outputs import read_json, told_spec
from tasks.reports import validation_figures
from tasks.workspace import Workspace

Part = dict[str, Any]


def validation_part(workspace: Workspace, picture: Callable[[Callable[[], Figure]], Part]) -> Part:
    """Numbers by what they are of, verdicts, tables, and pictures as `picture` makes them."""
    found = read_json(workspace, VALIDATION)
    metrics, gradient = found["metrics"], found["gradient"]
    return {
        "surrogate": told_spec(found),
        "metrics": metrics,
        "table": [
            {"name": name, "meaning": METRICS[name].meaning, "values": [metrics.get(f"{of}{name}") for of in _KINDS]}
            for name in HELD_OUT
            if name in metrics
        ],
        "kinds": _KINDS,
        "gates": [
            {name: gate[name] for name in ("name", "bound", "value", "passed")} for gate in found.get("gates", [])
        ],
        "passed": found["passed"],
        "n_validated": found["n_rows"],
        "recalibration": {name: found["recalibration"][name] for name in ("factor", "helps", "used")},
        "gradient": gradient,
        "law": None if found["learning_curve"] is None else found["learning_curve"]["law"],
        "variables": [[row[name] for name in _VARIABLE] for row in found["variables"]],
        "variable_head": list(_VARIABLE.values()),
        "n_rows": gradient.get("n_evaluations", 0),
        "n_failed": gradient.get("n_failed", 0) + gradient.get("n_infeasible", 0),
        "n_pending": 0,
        "pictures": {name: picture(draw) for name, draw in validation_figures(found).items()},
    }


_KINDS = {"": "by folds", "loo_": "one by one"}
"""How held-out numbers come about, by what their names begin with."""

_VARIABLE = {
    "variable": "variable",
    "first": "alone",
    "first_error": "±",
    "total": "with interactions",
    "total_error": "±",
    "relevance": "relevance",
}
