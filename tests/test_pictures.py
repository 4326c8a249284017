"""Pictures of a surrogate's surface and of a search: what is drawn is what was computed, for every kind of variable."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from surrogate_core import Categorical, Dataset, Float, GPSurrogate, Integer, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from tasks import pictures
from tasks.reports import has_field, has_planes

SPACES = {
    "one": SearchSpace({"x": Float(0, 1)}),
    "two": SearchSpace({"x": Float(0.1, 10, log=True), "y": Float(-1, 1)}),
    "mixed": SearchSpace(
        {"x": Float(0, 1, step=0.25), "n": Integer(1, 64, log=True), "kind": Categorical(["a", "b", True])}
    ),
    "choices": SearchSpace({"a": Categorical(["u", "v"]), "b": Categorical(["r", "s", "t"])}),
}


@cache
def fitted(name: str) -> tuple[FittedSurrogate, Dataset, dict[str, Any]]:
    space = SPACES[name]
    X = space.decode(sample("sobol", 16, space.n_dims, 0))
    y = ((space.encode(X) - 0.4) ** 2).sum(axis=1)
    rows = Dataset(X, np.where(np.arange(16) == 3, np.nan, y), space)
    return GPSurrogate(n_starts=1).fit(rows), rows, space.params(rows.X[rows.best_index])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", SPACES)
def test_slices_are_the_prediction_through_the_design(name: str, sign: float) -> None:
    model, rows, params = fitted(name)
    figure = pictures.slices(model, params, rows, sign)
    assert len(figure.axes) == model.space.n_dims
    x = model.space.point(params)
    for j, axes in enumerate(figure.axes):
        assert axes.get_xlabel() == model.space.names[j]
        drawn = axes.lines[0]
        at, values = (np.asarray(part, dtype=float) for part in drawn.get_data())
        points = np.tile(x, (len(at), 1))
        points[:, j] = at
        assert values == pytest.approx(sign * model.predict(points))
        assert x[j] in axes.lines[-1].get_xdata()
    assert len(figure.axes[0].collections[-1].get_offsets()) == rows.ok.n_samples  # type: ignore[arg-type]
    assert pictures.png(figure)


@pytest.mark.parametrize(
    ("name", "planes", "field"), [("one", 0, 0), ("two", 1, 1), ("mixed", 1, 0), ("choices", 0, 0)]
)
def test_planes_and_the_gradient_field_are_drawn_where_there_are_any(name: str, planes: int, field: int) -> None:
    model, rows, params = fitted(name)
    assert has_planes(model.space) == bool(planes)
    assert has_field(model.space) == bool(field)
    if planes:
        figure = pictures.planes(model, params, rows, 1.0)
        assert len(figure.axes) == 2 * 2 * planes  # prediction and deviation, each with its scale
        assert pictures.png(figure)
    if field:
        assert pictures.png(pictures.gradient_field(model, params, rows, -1.0))


def test_the_arrows_of_the_field_lead_downhill() -> None:
    model, rows, params = fitted("two")
    figure = pictures.gradient_field(model, params, rows, 1.0)
    (quiver,) = [made for made in figure.axes[0].collections if hasattr(made, "U")]
    at = np.asarray(quiver.get_offsets())
    arrows = np.column_stack([quiver.U, quiver.V])
    to_the_least = 0.4 - model.space.encode(at)
    far = np.linalg.norm(to_the_least, axis=1) > 0.2
    cosine = (arrows * to_the_least).sum(axis=1) / np.linalg.norm(arrows, axis=1) / np.linalg.norm(to_the_least, axis=1)
    assert (cosine[far] > 0.5).mean() > 0.9


def search(**changed: Any) -> dict[str, Any]:
    return {
        "goal": {"name": "mean", "kappa": 1.0, "best": None},
        "optima": {
            "params": [{"x": 0.25, "n": 8, "kind": "a"}, {"x": 1.0, "n": 1, "kind": True}],
            "predicted": [1.0, 1.5],
            "uncertainty": [0.1, 0.2],
            "n_starts": [2, 1],
        },
        "losses": [[3.0, 1.0], [2.0, None, 1.0], [1.5]],
        "statuses": ["converged", "max_iterations", "converged"],
        **changed,
    }


def test_convergence_tells_the_best_so_far_of_every_start_and_why_each_ended() -> None:
    axes = pictures.convergence(search(), "minimize").axes[0]
    assert axes.get_title() == "3 starts: 2 converged, 1 max iterations"
    assert axes.get_ylabel() == "predicted, best so far"
    paths = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert [2.0, 2.0, 1.0] in paths
    up = pictures.convergence(search(losses=[[1.0, 3.0, 2.0]], statuses=["stalled"]), "maximize").axes[0]
    assert np.asarray(up.lines[0].get_ydata()).tolist() == [1.0, 3.0, 3.0]
    assert up.get_title() == "1 start: 1 stalled"
    improvement = {"name": "log_expected_improvement"}  # told as it was minimized, whichever way the problem goes
    expected = pictures.convergence(
        search(losses=[[3.0, 1.0, 2.0]], statuses=["stalled"], goal=improvement), "maximize"
    )
    assert np.asarray(expected.axes[0].lines[0].get_ydata()).tolist() == [3.0, 1.0, 1.0]
    assert expected.axes[0].get_ylabel() == "−log expected improvement, best so far"
    cautious = pictures.convergence(search(goal={"name": "conservative"}), "minimize").axes[0]
    assert cautious.get_ylabel() == "conservative, best so far"


def test_optima_are_lines_between_the_bounds_and_wider_where_more_starts_came() -> None:
    space = SPACES["mixed"]
    figure = pictures.optima(search(), space, {"x": 0.5, "n": 8, "kind": "b"})
    lines = figure.axes[0].lines
    worst, best, design = lines[:3]
    U = space.encode([space.point(one) for one in search()["optima"]["params"]])
    assert np.asarray(best.get_ydata()) == pytest.approx(U[0])
    assert np.asarray(worst.get_ydata()) == pytest.approx(U[1])
    assert best.get_linewidth() > worst.get_linewidth()
    assert design.get_label() == "the design"
    assert pictures.png(figure)


def test_promises_that_were_not_kept_are_red_and_those_far_off_are_at_the_edge() -> None:
    row = {"predicted": 1.0, "predicted_lower": 0.0, "predicted_upper": 2.0}
    table = [
        {**row, "objective": value, "standardized_error": error}
        for value, error in ((1.2, 0.4), (21.0, 40.0), (None, None))
    ]
    figure = pictures.promises(table, {"disappointment": 0.5, "n_kept": 1, "n_verified": 2})
    errors = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in figure.axes[1].lines}
    assert errors["kept"] == [0.4]
    assert errors["not kept"] == [6.0]
    assert errors["disappointment to be expected now"] == [0.5, 0.5]
    assert pictures.png(figure)
