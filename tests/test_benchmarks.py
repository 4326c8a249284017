"""The benchmarks: their verdicts say yes and no, and their rows are those that were asked for."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import networks, offline, trust, tuned, tuning
from benchmarks.best_where import draw
from benchmarks.peers import PEERS
from benchmarks.rows import journal, row
from benchmarks.surrogates import _wanted, _words
from benchmarks.verdicts import DENSE, LIKELY, Required
from surrogate_core.problems.library import PROBLEMS

FIT = Required("fit", 5, "ours", "botorch", "fit", n=200, no_worse=DENSE)


def rows(*pairs: tuple[float, float], n: int = 200) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Two peers' rows by their ratio of times, and by how much worse our NLPD is."""
    made: dict[tuple[str, int, str], dict[str, Any]] = {}
    for i, (ratio, worse) in enumerate(pairs):
        made[f"p{i}", n, "ours"] = {"d": 2, "fit": 0.5, "nlpd": 1.0 + worse, "likelihood": 10.0}
        made[f"p{i}", n, "botorch"] = {"d": 2, "fit": 0.5 * ratio, "nlpd": 1.0, "likelihood": 10.0 + worse}
    return made


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(6, -1)], "yes"),
        ([(4, -1)], "NO"),
        ([(6, 1)], "NO"),
        ([(4, -1), (6, -1), (7, -1)], "yes"),
        ([(4, -1), (4.5, -1), (7, -1)], "NO"),
        ([(6, -1), (6, -1), (6, 1)], "yes"),
        ([(6, -1), (6, 1), (6, 1)], "NO"),
    ],
    ids=str,
)
def test_a_verdict_is_of_the_median_ratio_and_of_the_losses(pairs: list[tuple[float, float]], verdict: str) -> None:
    assert verdict in FIT.verdict(rows(*pairs)).split()


def test_a_likelihood_must_be_as_good_on_every_row() -> None:
    required = Required("fit", 1, "ours", "botorch", "fit", no_worse=LIKELY)
    assert "yes" in required.verdict(rows((2, -1), (2, 0.001))).split()
    assert "NO" in required.verdict(rows((2, -1), (2, 0.1))).split()


def test_rows_of_another_size_are_not_compared() -> None:
    assert "no rows" in FIT.verdict(rows((9, -1), n=50))
    assert "no rows" in FIT.verdict({})
    assert "no rows" in Required("gradient", 1, "ours", "botorch", "fit", d=6).verdict(rows((9, -1)))


@pytest.mark.parametrize(
    ("loop", "sklearn", "rmse", "eight", "verdicts"),
    [
        (200, 4, 0.9, 3.5, ["yes", "yes", "yes"]),
        (90, 4, 0.9, 3.5, ["NO", "yes", "yes"]),
        (200, 2, 0.9, 4.5, ["yes", "NO", "NO"]),
        (200, 4, 1.1, 3.5, ["NO", "NO", "yes"]),
    ],
)
def test_a_network_must_be_faster_and_no_worse(
    loop: float, sklearn: float, rmse: float, eight: float, verdicts: list[str]
) -> None:
    told = {"plain loop": {"s": loop, "rmse": 1.0}, "MLPRegressor": {"s": sklearn, "rmse": 1.0}}
    lines = networks.verdict([{**told, "ours": {"s": 1.0, "rmse": rmse}}], [eight, 3.0]).splitlines()
    assert [line.split()[-1] for line in lines] == verdicts


def test_which_surrogate_is_best_where_is_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.best_where.FOLDER", tmp_path)
    rows = {("branin", 50, kind): {"nlpd": i, "coverage": 0.9} for i, kind in enumerate(("ours", "network", "botorch"))}
    path = draw(rows)
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw({("branin", 50, "ours"): {"nlpd": 1.0, "coverage": 0.9}}) is None


def test_parts_can_be_asked_for() -> None:
    assert list(_wanted(_words("200,branin,ours,sklearn"), [])) == [("branin", 200, "ours"), ("branin", 200, "sklearn")]
    assert {n for _, n, _ in _wanted(_words("branin,ours"), [])} == {20, 50, 200, 500, 2000}
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected some of 20, 50, .*branin.*, got 'brannin'"):
        _words("brannin")


def test_what_a_missing_peer_would_bring_is_left_out() -> None:
    everything, without = set(_wanted((), [])), set(_wanted((), ["smt"]))
    assert {peer for _, _, peer in everything - without} == set(PEERS)  # an engine's rows come with it
    assert not {(problem, peer) for problem, _, peer in without if "b777" in problem or peer == "smt"}


def test_the_largest_size_is_fitted_by_scikit_learn_once() -> None:
    assert [problem for problem, n, peer in _wanted((), []) if n == 2000 and peer == "sklearn"] == ["hartmann6"]


def test_a_finished_row_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.rows.FOLDER", tmp_path)
    for fresh, about, expected in ((False, 1, 1), (False, 1, 1), (False, 2, 2), (True, 1, 2)):
        with journal("test", about, fresh) as done:
            assert row(done, "key", lambda: {"made": len(list(tmp_path.iterdir()))})["made"] == expected


@pytest.mark.slow
def test_a_row_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.one_fit", "flat", "branin", "50"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1]).stdout)
    assert 0 < told["rmse"] < 10
    assert 0.8 < told["coverage"] <= 1
    assert min(told[name] for name in ("fit_cold", "fit", "mean", "gradient", "peak_mb")) > 0
    assert told["likelihood"] > 0


@pytest.mark.parametrize(
    ("supported", "doubtful", "unsupported", "n_held", "verdict"),
    [
        (20, 12, 2, 19, "yes"),
        (15, 12, 2, 19, "NO"),  # supported, and no better too often
        (20, 12, 12, 19, "NO"),  # unsupported, and better as often as doubtful
        (20, 12, 2, 15, "NO"),  # intervals that do not hold
        (20, 12, 2, 20, "NO"),  # and such as always do
    ],
)
def test_the_verdict_on_verdicts(supported: int, doubtful: int, unsupported: int, n_held: int, verdict: str) -> None:
    """Of 20 designs of each kind so many were better; of 20 intervals so many held."""
    firsts = [
        {"probability": p, "is_better": i < n, "held": False, "held_corrected": i < n_held}
        for p, n in ((0.95, supported), (0.7, doubtful), (0.2, unsupported))
        for i in range(20)
    ]
    rows = [{"firsts": firsts, "verdict": "supported", "next_kept": True}]
    (line,) = [line for line in trust.summary(rows).splitlines() if line.endswith(("yes", "NO"))]
    assert line.endswith(verdict)


@pytest.mark.parametrize(
    ("default", "plain", "held", "verdict"),
    [(0.8, 0.5, 19, "yes"), (-0.1, -0.5, 19, "NO"), (0.4, 0.5, 19, "NO"), (0.05, 0.01, 19, "NO"), (0.8, 0.5, 20, "NO")],
)
def test_the_verdict_on_designs_from_data_alone(default: float, plain: float, held: int, verdict: str) -> None:
    told = {"mean": plain, "cautious": 0.3, "default": default, "stays": False}
    rows = [{**told, "held": i < held} for i in range(20)]
    assert offline.verdict(rows).endswith(verdict)


@pytest.mark.parametrize(
    ("better", "which"),
    [
        ((0.3, 0.2, 0.4), "win"),
        ((0.3, -0.2, 0.0), "tie"),  # seeds differ by more than the observations of each
        ((0.0, 0.0, 0.7), "tie"),  # a single seed tells nothing, whatever rounding does
        ((0.0, 0.0, -0.049), "tie"),
        ((-0.3, -0.2, -0.4), "loss"),
        ((0.3, 0.2, None), "loss"),  # an observation that was ruled out
        ((0.0, 0.0, 0.0), "tie"),
    ],
    ids=str,
)
def test_tuning_wins_or_loses_by_more_than_noise(better: tuple[float | None, ...], which: str) -> None:
    rows = [{"better": one, "error": 0.05, "is_default": one == 0.0} for one in better]
    assert tuned.of_problem(rows)[0] == which


@pytest.mark.parametrize(
    ("n_wins", "n_losses", "verdicts"), [(6, 0, ["yes", "yes"]), (5, 0, ["yes", "NO"]), (9, 1, ["NO", "yes"])]
)
def test_tuning_must_lose_nowhere_and_win_on_most(n_wins: int, n_losses: int, verdicts: list[str]) -> None:
    better = [0.3] * n_wins + [-0.3] * n_losses + [0.0] * (len(tuned.CASES) - n_wins - n_losses)
    rows = {
        name: [{"better": one, "error": 0.05, "is_default": one == 0.0}]
        for name, one in zip(tuned.CASES, better, strict=True)
    }
    assert [line.split()[-1] for line in tuned.verdict(rows).splitlines()[-2:]] == verdicts


def test_problems_of_tuning_are_those_of_their_sources() -> None:
    """Values by hand, of the middle of each space."""
    middle = {name: case.f(np.array([case.bounds]).mean(axis=2))[0] for name, case in tuned.CASES.items()}
    assert middle == pytest.approx(
        {
            "bump": 2 * np.exp(-8),
            "webster": 5.5**2 + 2**3,
            "exponential": 100 * sum(np.exp(-2 * 2**power) for power in (1.75, 1.5, 1.25)),
            "zhou": 1000 * (2 * np.pi) ** -1.5 * np.exp(-3 * (10 / 6) ** 2 / 2),
            "park": 0.25 * (np.sqrt(1 + 0.75 * 0.5 / 0.25) - 1) + 2 * np.exp(1 + np.sin(0.5)),
            "park_2": 2 / 3 * np.e - 0.5 * np.sin(0.5) + 0.5,
            "curved_8": 4 * 0.5**2 + 1 + sum(i * np.log(1 + 0.5 * (i - 2)) for i in range(4, 9)),
            "flood": 50 + (1750 / (300 * 35 * np.sqrt(0.001))) ** 0.6 - 8 - 55.25,
            "loeppky": 0.5 * 17.3 + 0.25 * 6.6,
            "linkletter": np.sin(0.5) + np.sin(2.5),
        }
    )
    assert all(np.isfinite(case.f(np.array(case.bounds).T)).all() for case in tuned.CASES.values())
    assert not {name for name in tuned.CASES if name in PROBLEMS}


def test_the_plain_ways_of_tuning_do_what_ours_do() -> None:
    one, other = ({"a": {"b": 0.1 + 0.2, "c": [1, None]}}, {"a": {"c": [1, None], "b": 0.3}})
    assert tuning.plain_signature(one) == tuning.plain_signature(other)
    assert tuning.plain_key(one) != tuning.plain_key(other)
    for merge in (tuning.plain_merge, tuning.copied_once):
        assert merge(one, {"a": {"b": 2}, "d": 3}) == {"a": {"b": 2, "c": [1, None]}, "d": 3}
    assert one == {"a": {"b": 0.1 + 0.2, "c": [1, None]}}


@pytest.mark.parametrize(("plain", "reached"), [(0.5, True), (0.1, False)])
def test_a_time_is_compared_with_the_plain_ways(plain: float, reached: bool) -> None:
    what, against, figures, told = tuning.compared("adds", "a commit each", 5, plain, 0.1, n=100)
    assert (what, against, told) == ("adds", "a commit each: 5x", reached)
    assert figures.endswith(f"({1e3 * plain / 100:g} ms against 1 ms each)")


@pytest.mark.slow
def test_a_row_of_verdicts_and_one_of_offline_designs_are_made_as_the_tables_want_them() -> None:
    told = trust.measure("branin", 2, 4)
    assert len(told["firsts"]) == trust.ROUNDS
    assert told["verdict"] in ("supported", "doubtful", "unsupported")
    assert trust.summary([told]).count("\n") == 6
    one = offline.measure("gaussian_process", "branin", 0)
    assert one["default"] >= 0
    assert offline._line("branin", 0, one).startswith("branin ")
