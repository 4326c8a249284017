"""What the page tells of each stage, read back from the stage's files: plain values, tables and drawn pictures."""

import base64
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from flows.page_validation import validation_part
from surrogate_core.dataset import Dataset
from surrogate_core.tuning.champion import LEVEL
from tasks import pictures
from tasks.errors import BadInput
from tasks.keys import CHAMPION, DATASET, EVALUATIONS, MODEL, OPTIMIZED, OPTIMUM, STAGES, TUNED_EVALUATIONS, TUNING
from tasks.outputs import read_dataset, read_json, read_model, specs, told_spec
from tasks.reports import is_done, landscape_figures, recommendation, search_figures, study_rows, tuning_figures
from tasks.workspace import Workspace

MAX_SVG_BYTES = 400_000  # a picture of more points than that is smaller as pixels
EDGE = 1e-3  # a design so near a bound, in parts of the variable's range, is at it
N_REASONS = 8

Part = dict[str, Any]
Parts = Mapping[str, Part | None]
"""What the template says of each stage; None of one whose files are not there."""


def part_of(stage: str, workspace: Workspace) -> Part | None:
    """What there is to tell of a stage; None where its files are not all there.

    Raises:
        BadInput: one of them is damaged.
    """
    if not is_done(stage, workspace):
        return None
    try:
        return _PARTS[stage](workspace)
    except BadInput:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # it can be read, but is something else
        outs = ", ".join(str(workspace.out / path) for path in STAGES[stage].outs)
        raise BadInput(
            f"{outs}: expected what {stage} writes, got other content ({error!r}); run {stage} again"
        ) from error


def headline_of(workspace: Workspace, parts: Parts) -> Part | None:
    """The best that is known: what tune recommends, else what optimize came to, else the best sample."""
    samples = parts["collect"]
    stage, final = _last(parts)
    if final is None and samples:
        best = samples["best"]
        unknown = ("promised", "lower", "upper", "kept", "gain", "surrogate", "extrapolation", "trust", "gates_passed")
        nothing = dict.fromkeys(unknown)
        stage, final = "collect", {**nothing, **best, "best_sample": best, "found_by": "collect"}
    if final is None:
        return None
    space = workspace.settings.problem.search_space
    variables = samples["variables"] if samples else dict(space.to_config()["variables"]) if space else {}
    best = final["best_sample"]["params"]
    design = [
        {"name": name, "value": value, "best": best.get(name), **_place(variables.get(name, {}), value)}
        for name, value in final["params"].items()
    ]
    counts = [part for part in parts.values() if part and "n_rows" in part]
    totals = {name: sum(part[name] for part in counts) for name in ("n_rows", "n_failed", "n_pending")}
    return {**final, **totals, "stage": stage, "design": design, "digits": _digits(final)}


def overview(workspace: Workspace, parts: Parts) -> dict[str, Any]:
    """The pictures that several stages have a share in."""
    drawn: dict[str, Any] = {"history": None, "against_variables": None, "designs": None, "landscape": {}}
    if samples := parts["collect"]:
        done = {name: part["rows"] for stage, name in _ROWS.items() if (part := parts[stage])}
        # Rows of another space are those that older settings left behind.
        rows = {name: data for name, data in done.items() if data.space == samples["rows"].space}
        sign = workspace.settings.problem.sign
        drawn["history"] = _picture(lambda: pictures.history(rows, sign))
        drawn["against_variables"] = _picture(lambda: pictures.against_variables(rows, sign))
    stage, final = _last(parts)
    if final is not None and parts["collect"]:
        model = CHAMPION if stage == "tune" else OPTIMIZED
        makers = landscape_figures(workspace, final, model)
        drawn["landscape"] = {name: _picture(draw) for name, draw in makers.items()}
    if final is not None and workspace.settings.report.figure is not None:
        designs = {"best sample": final["best_sample"]["params"], "optimized design": final["params"]}

        def draw() -> Figure:
            maker = workspace.settings.report.figure_maker
            assert maker is not None
            figure: Figure = maker(designs)
            return figure

        drawn["designs"] = _picture(draw)
    return drawn


_ROWS = {"collect": "samples", "optimize": "rounds", "tune": "tuning"}


def _collect(workspace: Workspace) -> Part:
    rows, sign = read_dataset(workspace, DATASET), workspace.settings.problem.sign
    best = rows.best_index
    return {
        **_counted(rows),
        "variables": dict(rows.space.to_config()["variables"]),
        "constraints": rows.space.to_config()["constraints"],
        "metadata": dict(rows.metadata),
        "best": {"params": rows.space.params(rows.X[best]), "measured": float(sign * rows.y[best])},
        "histogram": _picture(lambda: pictures.histogram(rows, sign)),
    }


def _fit(workspace: Workspace) -> Part:
    fitted = read_model(workspace, MODEL)
    models = {"first": fitted}
    if is_done("tune", workspace):
        models["last"] = read_model(workspace, CHAMPION)
    told = {name: value for name, value in fitted.diagnostics.items() if not isinstance(value, Mapping)}
    return {
        "surrogate": told_spec(specs(fitted)),
        "lengthscales": {name: model.diagnostics.get("lengthscales", {}) for name, model in models.items()},
        "tried": dict(fitted.diagnostics.get("leave_one_out_density", {})),
        "fallbacks": told.pop("fallbacks", []),
        "diagnostics": told,
    }


def _validate(workspace: Workspace) -> Part:
    return validation_part(workspace, _picture)


def _optimize(workspace: Workspace) -> Part:
    found, rows = read_json(workspace, OPTIMUM), read_dataset(workspace, EVALUATIONS)
    names = ("round", "promised", "lower", "upper", "measured", "best_so_far")
    return {
        **_counted(rows),
        "final": _outcome(found),
        "rounds": [{name: row[name] for name in names} | {"kept": _kept(row)} for row in found["rounds"]],
        "evaluations": _evaluations(found),
        "pictures": {name: _picture(draw) for name, draw in search_figures(workspace, found).items()},
    }


def _tune(workspace: Workspace) -> Part:
    found, rows = read_json(workspace, TUNING), read_dataset(workspace, TUNED_EVALUATIONS)
    sides = ("champion", "challenger")
    return {
        **_counted(rows),
        "final": _outcome(recommendation(workspace)),
        "sides": {side: {"spec": told_spec(found[side]), "metrics": found[side]["metrics"]} for side in sides},
        "challenger_is_better": found["challenger_is_better"],
        "advantage": found["advantage"]["mean_log_density"],
        "error": found["advantage"]["standard_error"],
        "p_value": found["advantage"]["p_value"],
        "level": LEVEL,
        "n_duplicates": found["n_duplicates"],
        "trials": _trials(found),
        "best_score": min(row["nlpd"] for row in found["trials"] if row["status"] == "ok"),
        "evaluations": _evaluations(found),
        "warnings": found["warnings"] or [],
        "pictures": {name: _picture(draw) for name, draw in tuning_figures(found).items()},
    }


_PARTS: dict[str, Callable[[Workspace], Part]] = {
    "collect": _collect,
    "fit": _fit,
    "validate": _validate,
    "optimize": _optimize,
    "tune": _tune,
}


def _last(parts: Parts) -> tuple[str, Part | None]:
    """The last stage that came to a design, and what it says of it."""
    return next(((stage, part["final"]) for stage in ("tune", "optimize") if (part := parts[stage])), ("", None))


def _outcome(found: Part) -> Part:
    """The design that a stage came to; nothing was measured of it where others are to evaluate it."""
    told = {name: found[name] for name in ("params", "measured", "gain", "promised", "found_by", "extrapolation")}
    told |= {name: None if found["promised"] is None else found[name] for name in ("lower", "upper")}
    best = {name: found["best_sample"][name] for name in ("params", "measured")}
    told |= {name: found.get(name) for name in ("gates_passed", "failed_gates")}
    return {**told, "trust": found["trust"], "best_sample": best, "kept": _kept(told), "surrogate": told_spec(found)}


def _kept(row: Part) -> bool | None:
    """Whether what was measured lies in the interval that was promised; None where there is no such thing."""
    if row["measured"] is None or row["promised"] is None:
        return None
    return bool(row["lower"] <= row["measured"] <= row["upper"])


def _evaluations(found: Part) -> Part:
    """A table of what was evaluated; no column for failures where there are none."""
    made = found["evaluations"]
    names = list(made[0]["params"]) if made else []
    told = {"proposed_in": "round", "predicted": "predicted", "predicted_lower": "95 % from", "predicted_upper": "to"}
    told |= {"extrapolation": "distance", "objective": "measured"} | (
        {"reason": "failed with"} if any(row["reason"] for row in made) else {}
    )
    rows = [[*(row[name] for name in told), *(row["params"][name] for name in names)] for row in made]
    return {"head": [*told.values(), *names], "rows": rows}


def _trials(found: Part) -> Part:
    tried = found["trials"]
    names = dict.fromkeys(name for row in study_rows(tried, "nlpd") for name in row["params"])
    told = {"nlpd": "score", **{name: name for name in names}}
    told |= {"reason": "failed with"} if any(row["reason"] for row in tried) else {}
    rows = [[row["number"] + 1, *(row.get(name) for name in told)] for row in tried]
    return {"head": ["spec", *told.values()], "rows": rows}


def _counted(rows: Dataset) -> Part:
    """Rows, and why some gave nothing: the most frequent reasons, and what is rarer than the first few together."""
    useless = (rows.status == "failed") | (rows.status == "infeasible")
    counted = Counter(rows.reason[useless].tolist()).most_common()
    rest = counted[N_REASONS:]
    others = [(f"{len(rest)} other reasons", sum(count for _, count in rest))] if rest else []
    n_failed = sum(count for _, count in counted)
    return {
        "rows": rows,
        "n_rows": rows.n_samples,
        "n_failed": n_failed,
        "n_pending": int((rows.status == "pending").sum()),
        "reasons": counted[:N_REASONS] + others,
    }


def _digits(final: Part) -> int:
    """As many as tell the ends of the promised interval from each other."""
    if final["promised"] is None or not final["promised"] or final["upper"] <= final["lower"]:
        return 4
    width = (final["upper"] - final["lower"]) / abs(final["promised"])
    return min(max(4, 2 - math.floor(math.log10(width))), 12)


def _place(variable: Mapping[str, Any], value: Any) -> Part:
    """Where a value lies between its bounds, from 0 to 1, and which of them it is at; None for what has no bounds."""
    low, high = variable.get("low"), variable.get("high")
    if low is None or high is None or isinstance(value, str | bool):
        return {"low": None, "high": None, "place": None, "edge": ""}
    place = math.log(value / low) / math.log(high / low) if variable.get("log") else (value - low) / (high - low)
    edge = "lower" if place < EDGE else "upper" if place > 1 - EDGE else ""
    return {"low": low, "high": high, "place": min(max(place, 0.0), 1.0), "edge": edge}


def _picture(draw: Callable[[], Figure]) -> Part:
    """A picture as a `data:` address, or why there is none."""
    try:
        figure = draw()
        content, kind = pictures.svg(figure), "svg+xml"
        if len(content) > MAX_SVG_BYTES:
            content, kind = pictures.png(figure), "png"
    except Exception as error:  # noqa: BLE001 - a figure may be the user's own
        return {"src": "", "trouble": f"{type(error).__name__}: {error}"}
    return {"src": f"data:image/{kind};base64,{base64.b64encode(content).decode()}", "trouble": ""}
