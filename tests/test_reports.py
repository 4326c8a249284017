"""Reports say in one line how a stage went, and draw what it found; both verdicts are shown."""

from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from flows.outcome import summary
from flows.view import LiveTable
from surrogate_core.performance.profiler import Cost
from tasks import pictures
from tasks.reports import Report


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
    params = "a 1.25, rate [1/s] per [/h]"  # which is no markup
    for words in ("0.012 (95 % interval 0.01 to 0.014)", "0.013", "56.7% better", "the champion", params, "passed"):
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
