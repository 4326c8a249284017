"""Reports say in one line how a stage went, and draw what it found; both verdicts are shown."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from flows.outcome import summary
from flows.view import LiveTable
from surrogate_core.performance.profiler import Cost
from tasks import pictures
from tasks.reports import Report, validation_figures


def validation(passed: bool) -> dict[str, Any]:
    return {
        "metrics": {"r2": 0.9 if passed else 0.1, "coverage_95": 0.95},
        "gates": [{"name": "min_r2", "value": 0.9 if passed else 0.1, "bound": 0.5, "passed": passed}],
        "held_out": [
            {"fold": 0, "y": 1.0, "predicted": 1.1, "lower": 0.5, "upper": 1.5},
            {"fold": 1, "y": 2.0, "predicted": 1.0, "lower": 0.5, "upper": 1.5},
        ],
    }


@pytest.mark.parametrize(("passed", "verdict"), [(True, "passed min_r2: 0.9"), (False, "FAILED min_r2: 0.1 < 0.5")])
def test_the_parity_picture_tells_the_gates(passed: bool, verdict: str) -> None:
    figure = pictures.parity(validation(passed))
    assert verdict in figure.axes[0].get_title()
    assert pictures.png(figure).startswith(b"\x89PNG")


def validated(**changed: Any) -> dict[str, Any]:
    """What `validate` wrote, as far as a picture reads it."""
    rng = np.random.default_rng(0)
    names = ("cumulative", "recalibrated", "left_out", "extrapolation", "standardized_error")
    rows = [dict(zip(names, row.tolist(), strict=True)) for row in rng.random((9, 5))]
    variable = {"relevance": 0.5, "first": 0.3, "total": 0.6, "first_error": 0.1, "total_error": 0.1}
    slope = {"slope": 1.0, "slope_error": 0.1, "predicted_slope": -0.5}
    told = {
        "metrics": {
            "miscalibration_area": 0.2,
            "recalibrated_miscalibration_area": 0.1,
            "gradient_cosine": -0.5,
            "rmse_if_doubled": 0.1,
            "rmse_ratio_if_doubled": 0.5,
            "first_order_share": 0.6,
        },
        "recalibration": {"factor": 1.5, "helps": True, "used": True},
        "gradient": {"slopes": [{"at": 0, "along": name, **slope} for name in "xy"]},
        "learning_curve": {
            "law": {"scale": 1.0, "exponent": 1.0, "standard_error": None},
            "fits": [{"repeat": 0, "n": n, "rmse": 1 / n} for n in (2, 4)],
        },
        "variables": [{"variable": f"x{i}", **variable} for i in range(20)],
        "held_out": rows,
        "n_rows": 9,
    }
    return {**told, **changed}


@pytest.mark.parametrize(
    ("learned", "verdict"),
    [
        ({"helps": True, "used": True}, "(used)"),
        ({"helps": True, "used": False}, "(not used)"),
        ({"helps": False, "used": False}, "(of no help)"),
    ],
)
def test_the_calibration_picture_tells_what_became_of_the_factor(learned: dict[str, Any], verdict: str) -> None:
    found = validated(recalibration={"factor": 1.5, **learned})
    (axes,) = pictures.calibration(found).axes
    assert axes.get_title() == f"miscalibration area 0.200, stretched 0.100 {verdict}"
    shares = {line.get_label(): line.get_ydata() for line in axes.lines[1:]}
    named = {"cumulative": "as fitted", "recalibrated": "stretched by 1.5", "left_out": "one by one"}
    assert shares.keys() == set(named.values())
    for column, label in named.items():
        assert shares[label][50] == np.mean([row[column] <= 0.5 for row in found["held_out"]])


def test_a_surrogate_without_a_closed_form_has_no_curve_of_rows_left_out_one_by_one() -> None:
    found = validated()
    for row in found["held_out"]:
        del row["left_out"]
    (axes,) = pictures.calibration(found).axes
    assert len(axes.lines) == 3


def test_a_gradient_of_the_wrong_sign_is_seen() -> None:
    (axes,) = pictures.gradients(validated()).axes
    assert axes.get_title() == "gradient: cosine -0.50"
    assert [line.get_xydata().tolist() for line in axes.lines[1:]] == [[[1.0, -0.5]]] * 2
    assert axes.get_legend() is not None
    many = [{"at": 0, "along": f"x{i}", "slope": 0.0, "slope_error": 0.0, "predicted_slope": 0.0} for i in range(20)]
    assert pictures.gradients(validated(gradient={"slopes": many})).axes[0].get_legend() is None


def test_the_learning_curve_looks_ahead() -> None:
    (axes,) = pictures.learning_curve(validated()).axes
    ahead = axes.lines[2]
    assert (ahead.get_xdata()[-1], ahead.get_ydata()[-1]) == (pytest.approx(18), pytest.approx(1 / 18))
    assert "0.50 of the error" in axes.get_title()
    perfect = {"law": {"scale": 1e-12, "exponent": 0.0, "standard_error": 0.0}, "fits": [{"n": 2, "rmse": 0.0}]}
    assert pictures.png(pictures.learning_curve(validated(learning_curve=perfect))).startswith(b"\x89PNG")


def test_the_most_important_variables_are_drawn_on_top() -> None:
    found = validated()
    found["variables"][19]["total"] = 0.9
    (axes,) = pictures.sensitivity(found).axes
    assert len(axes.get_yticks()) == pictures.PANELS
    assert axes.get_yticklabels()[0].get_text() == "x19"


def test_an_error_beyond_all_bounds_is_drawn_within() -> None:
    found = validated()
    found["held_out"][0]["standardized_error"] = -1e300
    (axes,) = pictures.reach(found).axes
    assert max(axes.lines[0].get_ydata()) == 10


def test_only_what_there_is_is_drawn() -> None:
    assert list(validation_figures(validated())) == [
        "parity",
        "calibration",
        "gradients",
        "learning_curve",
        "sensitivity",
        "reach",
    ]
    less = validation_figures(validated(gradient={"why_not": "no"}, learning_curve=None))
    assert list(less) == ["parity", "calibration", "sensitivity", "reach"]


def test_a_round_whose_evaluations_failed_is_drawn() -> None:
    row = {"round": 1, "promised": 0.1, "lower": 0.0, "upper": 0.2, "measured": None, "best_so_far": 0.3}
    optimum = {
        "best_sample": {"measured": 0.3},
        "rounds": [row],
        "evaluations": [{"proposed_in": 1, "objective": None}],
    }
    assert isinstance(pictures.rounds(optimum), Figure)


def final(**changed: Any) -> dict[str, Any]:
    told = {
        "best_sample": {"measured": 0.03},
        "promised": 0.012,
        "lower": 0.01,
        "upper": 0.014,
        "measured": 0.013,
        "gain": 0.5667,
        "params": {"a": 1.25},
        "trust": {"verdict": "doubtful", "why": "only 1 of [2] promises were kept"},
        "gates_passed": True,
        "failed_gates": [],
        "surrogate": {"kind": "gaussian_process", "length_scale": None, "kernel": "rbf"},
        "challenger_is_better": False,
        "n_evaluations": 104,
        "n_failed": 0,
        "n_infeasible": 0,
    }
    return {**told, **changed}


def text(told: dict[str, Any]) -> str:
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(told))
    return console.export_text()


def test_the_summary_tells_what_was_promised_and_measured() -> None:
    told = text(final(params={"a": 1.25, "rate [1/s]": "per [/h]"}))
    trust = "doubtful: only 1 of [2] promises were kept"
    params = "a 1.25, rate [1/s] per [/h]"  # which is no markup
    for words in (
        "0.012 (95 % interval 0.01 to 0.014)",
        "0.013",
        "56.7% better",
        "the champion",
        params,
        "passed",
        trust,
    ):
        assert words in told


def test_the_summary_tells_of_failed_gates_and_of_a_sample_that_stands() -> None:
    failed = ["min_r2 0.5 (it is 0.45)"]
    told = text(final(gates_passed=False, failed_gates=failed, promised=None, gain=0.0, challenger_is_better=True))
    assert "FAILED min_r2 0.5 (it is 0.45)" in told
    assert "the best sample stands" in told
    assert "the challenger" in told


def test_words_of_a_black_box_are_no_markup() -> None:
    console = Console(width=200, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with LiveTable(console, ("collect",)) as view:
        view.begin("collect")
        view.end(Report("collect", "8 samples, 1 failed (OSError: no such [/tmp/x] [nm])"), "miss", Cost())
    assert "no such [/tmp/x] [nm]" in console.export_text()
