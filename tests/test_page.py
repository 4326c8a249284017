"""The page of a run: all that is on disk, nothing that a browser would fetch, and what is missing said so."""

import base64
import functools
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result

from flows.cli import cli
from flows.last_run import last_run, note_end, note_stage
from flows.page import page, write_page
from surrogate_core.dataset import Dataset
from surrogate_core.performance.profiler import Cost
from surrogate_core.space import Float, Integer, SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from tasks import pictures
from tasks.errors import BadInput
from tasks.keys import DATASET, OPTIMUM, RECOMMENDATION, STAGES, TUNING, VALIDATION, stage_key
from tasks.settings import load_settings
from tasks.workspace import Workspace

PARAMS = """\
problem:
  function: box:f
  source: box.py
  space: {x: {type: float, low: 0.01, high: 1, log: true}, n: {type: integer, low: 1, high: 8}}
collect: {n_samples: 6}
fit: {surrogate: {kind: gaussian_process}}
validate: {folds: 2}
tune: {space: {kernel: [matern52, rbf]}}
report: {figure: "box:draw"}
"""
BOX = """\
from matplotlib.figure import Figure

def f(x, n): return x * n

def draw(designs):
    figure = Figure()
    figure.subplots().set_title(", ".join(designs))
    return figure
"""
SPACE = SearchSpace({"x": Float(0.01, 1, log=True), "n": Integer(1, 8)})
SPEC = GPSurrogate(kernel="auto")
CHOSEN = replace(SPEC, kernel="rbf")
REASON = 'RuntimeError: <script>alert("1 & 2")</script> at http://127.0.0.1/x.js'


def rows(*y: float) -> Dataset:
    X = SPACE.decode(np.random.default_rng(len(y)).random((len(y), 2)))
    return Dataset(X, np.array(y), SPACE, reason=np.where(np.isfinite(y), "", REASON))


@functools.cache
def model() -> dict[str, bytes]:
    state = GPSurrogate(kernel="rbf", n_starts=1).fit(rows(3.0, 2.0, 40.0, 5.0, 2.5)).state
    told = {
        "n_rows": 5,
        "modes": [2.5, 3.0],
        "fallbacks": ["1 repeated row merged"],
        "lengthscales": {"x": 0.25, "n": 2.0},
        "noise": 1e-4,
        "leave_one_out_density": {"standardize, matern52": -1.5, "standardize, rbf": -1.25},
    }
    return surrogate_files(FittedSurrogate(CHOSEN, SPACE, state, told, SPEC))


def evaluation(proposed_in: int, objective: float | None, **params: Any) -> dict[str, Any]:
    told = {"proposed_in": proposed_in, "kappa": 0.0, "predicted": 1.2, "predicted_lower": 1.0, "predicted_upper": 1.4}
    return {
        **told,
        "extrapolation": 0.75,
        "objective": objective,
        "standardized_error": None if objective is None else 10 * (objective - 1.2),
        "reason": "" if objective else REASON,
        "params": params or {"x": 0.5, "n": 8},
    }


TRUST: dict[str, Any] = {
    "verdict": "doubtful",
    "why": "measured 1.25, the best sample 2: an improvement, but only 1 of 2 promises were kept",
    "disappointment": 0.75,
    "corrected": 1.3,
    "corrected_lower": 1.0,
    "corrected_upper": 1.6,
    "n_verified": 2,
    "n_kept": 1,
    "gradient_norm": 0.0625,
    "hessian_condition": None,
    "agreement": 0.5,
    "probability": None,
}
OUTCOME: dict[str, Any] = {
    "best_sample": {"params": {"x": 0.25, "n": 3}, "measured": 2.0},
    "found_by": "surrogate",
    "promised": 1.2345,
    "lower": 1.1,
    "upper": 1.4,
    "params": {"x": 0.012345678, "n": 8},
    "measured": 1.25,
    "gain": 0.375,
    "extrapolation": 1.5,
    "trust": TRUST,
    "surrogate": SPEC.to_config(),
    "chosen": CHOSEN.to_config(),
    "n_evaluations": 2,
    "n_failed": 1,
    "n_infeasible": 0,
}
METRICS = {"r2": 0.4, "rmse": 0.1, "mae": 0.08, "nlpd": -1.0, "coverage_95": 0.9, "miscalibration_area": 0.1}
SLOPES = {"slope": 1.0, "slope_error": 0.1, "predicted_slope": 0.5}
HELD_OUT = {"predicted": 2.0, "lower": 1.0, "upper": 2.5, "cumulative": 0.3, "recalibrated": 0.4, "extrapolation": 0.5}
REPORTS: dict[str, dict[str, Any]] = {
    VALIDATION: {
        "metrics": METRICS
        | {
            "loo_r2": 0.625,
            "recalibrated_coverage_95": 0.97,
            "recalibrated_miscalibration_area": 0.05,
            "gradient_cosine": 0.875,
            "gradient_sign_agreement": 0.75,
            "gradient_relative_error": 0.3,
            "gradient_truth_error": 0.02,
            "rmse_if_doubled": 0.06,
            "rmse_ratio_if_doubled": 0.6,
            "first_order_share": 0.8,
            "extrapolation_share": 0.125,
        },
        "passed": False,
        "gates": [
            {"name": "min_r2", "value": 0.4, "bound": 0.5, "passed": False},
            {"name": "max_rmse", "value": 0.1, "bound": 0.2, "passed": True},
            {"name": "max_loo_crps", "value": None, "bound": 0.2, "passed": False},
        ],
        "n_rows": 5,
        "surrogate": SPEC.to_config(),
        "chosen": CHOSEN.to_config(),
        "recalibration": {"factor": 1.25, "helps": True, "used": True},
        "gradient": {
            "source": "differences",
            "n_evaluations": 8,
            "n_failed": 1,
            "n_infeasible": 0,
            "points": [{"checked": 0, "params": {"x": 0.5, "n": 8}, "cosine": 0.875, "off": 0.3, "beyond": 0.25}],
            "slopes": [{"at": 0, "along": name, **SLOPES} for name in ("x", "n")],
        },
        "learning_curve": {
            "law": {"scale": 1.0, "exponent": 0.5, "standard_error": 0.1},
            "fits": [{"repeat": 0, "n": n, "rmse": 1 / n} for n in (2, 4)],
        },
        "variables": [
            {"variable": name, "relevance": 0.5, "first": 0.4, "total": 0.6, "first_error": 0.01, "total_error": 0.02}
            for name in ("x", "n")
        ],
        "held_out": [{"fold": 0, "y": y, **HELD_OUT, "standardized_error": y - 2} for y in (1.5, 2.0, 3.0)],
    },
    OPTIMUM: {
        **OUTCOME,
        "rounds": [
            {"round": 1, "promised": 1.2, "lower": 1.0, "upper": 1.4, "measured": 1.6, "best_so_far": 1.6},
            {"round": 2, "promised": 1.2, "lower": 1.0, "upper": 1.4, "measured": 1.25, "best_so_far": 1.25},
        ],
        "evaluations": [evaluation(1, 1.6), evaluation(2, 1.25), evaluation(2, None)],
        "search": {
            "goal": {"name": "mean", "kappa": 1.0, "best": None},
            "optima": {
                "params": [{"x": 0.5, "n": 8}, {"x": 0.05, "n": 2}],
                "predicted": [1.2, 1.5],
                "uncertainty": [0.1, 0.2],
                "n_starts": [1, 1],
            },
            "losses": [[3.0, 1.2], [2.0, None, 1.5]],
            "statuses": ["converged", "max_iterations"],
        },
    },
    TUNING: {
        "champion": {"surrogate": SPEC.to_config(), "metrics": METRICS},
        "challenger": {"surrogate": GPSurrogate(kernel="rbf").to_config(), "metrics": METRICS},
        "challenger_is_better": False,
        "advantage": {"mean_log_density": 0.05, "standard_error": 0.1, "p_value": 0.2},
        "n_duplicates": 1,
        "duplicate_ratio": 0.25,
        "degenerate_ratio": 1 / 3,
        "warnings": ["33% of the trials taught nothing"],
        "importance": {"kernel": 0.75},
        "trials": [
            {"number": 0, "kernel": "matern52", "nlpd": -1.0, "status": "ok", "reason": ""},
            {"number": 1, "kernel": "rbf", "nlpd": None, "status": "failed", "reason": "ValueError: no"},
            {"number": 2, "kernel": "matern32", "nlpd": -0.5, "status": "ok", "reason": ""},
        ],
        "evaluations": [evaluation(1, 1.3)],
    },
    RECOMMENDATION: {
        **OUTCOME,
        "challenger_is_better": False,
        "gates_passed": False,
        "failed_gates": ["min_r2 0.5", "trust supported (it is doubtful)"],
    },
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """One in which every stage has run, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "box", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "box.py").write_text(BOX)
    made = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    tables = {
        DATASET: rows(3.0, 2.0, np.nan, 40.0, 5.0, np.nan, 2.5),
        "data/evaluations.parquet": rows(1.6, 1.25, np.nan),
        "data/tuning_evaluations.parquet": rows(1.3),
    }
    files = {path: table.to_bytes() for path, table in tables.items()}
    files |= {path: orjson.dumps(report) for path, report in REPORTS.items()}
    for folder in ("data/model", "data/optimized_model", "data/champion"):
        files |= {f"{folder}/{name}": content for name, content in model().items()}
    made.write(files, ())
    return made


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made but not rendered, which takes most of a page's time."""
    monkeypatch.setattr(pictures, "svg", lambda figure: b"<svg/>")


class Parsed(HTMLParser):
    """A page's words, its elements, and the addresses that a browser would fetch or follow."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.said: list[str] = []
        self._styles = ""
        self.feed(text)
        self.addresses += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", self._styles)
        self.words = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background", "formaction"):
                self.addresses.append(value or "")
            if name == "style":
                self._styles += value or ""

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] == ["style"]:
            self._styles += data
            self.elements.append("/style")
        else:
            self.said.append(data)

    @property
    def foreign(self) -> list[Any]:
        return [address for address in self.addresses if not str(address).startswith(("data:", "#"))]


@pytest.mark.parametrize(
    "element",
    [
        "<img src='//example.org/x.png'>",
        "<link rel=stylesheet href=https://example.org/x.css>",
        "<script src=x.js></script>",
        "<style>p { background: url(x.png) }</style>",
        "<style>@import 'x.css';</style>",
        "<p style='background: url(//example.org/x)'>",
    ],
)
def test_what_is_fetched_is_seen(element: str) -> None:
    assert Parsed(element).foreign


def test_the_whole_page_fetches_nothing_and_tells_everything(workspace: Workspace) -> None:
    parsed = Parsed(page(workspace))
    assert parsed.foreign == []
    assert "script" not in parsed.elements
    assert sorted(parsed.ids) == sorted([*STAGES, "recommendation", "settings", "timings"])
    assert parsed.elements.count("img") == 20
    for picture in (address for address in parsed.addresses if address.startswith("data:")):
        drawn = base64.b64decode(picture.partition("base64,")[2]).decode()
        assert [link for link in re.findall(r'href="([^"]*)"', drawn) if not link.startswith(("#", "data:"))] == []
    for told in (
        "1.25 measured; 37.5 % better than the best sample doubtful measured 1.25, the best sample 2",
        "corrected for a disappointment of 0.75 sd 1.3, 95 % interval 1 to 1.6",
        "starts that agree 50 %",
        "slope of the prediction 0.062 sd a range",
        "1.234, 95 % interval 1.1 to 1.4 ✓ kept",
        "✗ FAILED min_r2 0.5, trust supported (it is doubtful)",
        "distance from the data when proposed 1.5, beyond their edge",
        "gaussian_process(kernel=auto), which chose kernel=rbf",
        "standardize, rbf -1.25",
        "1 repeated row merged",
        "max_loo_crps at most 0.2 not measured ✗ FAILED",
        "R² 0.4 0.625",
        "90 % of the held-out values lie within their 95 % interval",
        "Standard deviations 1.25 times as large fit the errors best; 97 % would then lie within.",
        "All intervals that the rounds promise are stretched so.",
        "compared at 1 point with differences of 8 evaluations, of which 1 failed.",
        "angle between the two is 0.88 on average",
        "75 % have the right sign. The error is 0.3 of the gradient's length; the truth itself is known to 0.02 of it.",
        "explain 80 % of the prediction's variance",
        "12.5 % of the search space lies beyond the data.",
        "Twice as many samples are expected to leave 60 % of the error: a root mean square error of 0.06.",
        "x 0.0123457 0.25",
        "at its upper bound",
        "7 samples, of which 2 failed or broke a constraint. The best is 2.",
        "19, of which 4 failed",
        "min_r2 at least 0.5 0.4 ✗ FAILED",
        "max_rmse at most 0.2 0.1 ✓ passed",
        "1 1.2 1 1.4 1.6 ✗ not kept 1.6",
        "2 1.2 1 1.4 1.25 ✓ kept 1.25",
        "The champion stays",
        "kind: gaussian_process",
    ):
        assert told in parsed.words


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_validated_is_said(workspace: Workspace) -> None:
    unchecked = {"why_not": "validate.gradient_evaluations is 0"}
    metrics = {name: value for name, value in REPORTS[VALIDATION]["metrics"].items() if "if_doubled" not in name}
    left = {"factor": 1.25, "helps": True, "used": False}
    change(workspace, VALIDATION, gradient=unchecked, learning_curve=None, metrics=metrics, recalibration=left)
    words = Parsed(page(workspace)).words
    assert "Not checked: validate.gradient_evaluations is 0." in words
    assert "They are left as they are: validate.recalibrate is off." in words
    assert "Twice as many samples" not in words
    assert "11, of which 3 failed" in words  # evaluations


@pytest.mark.usefixtures("undrawn")
def test_text_of_a_black_box_is_no_markup(workspace: Workspace) -> None:
    text = page(workspace)
    assert "<script" not in text
    assert f"2 {REASON}" in Parsed(text).words


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("gone", "headline"),
    [
        (["tune"], "This is what optimize came to"),
        (["optimize", "tune"], "2 measured; the best of the samples This is what collect came to"),
        (["collect", "fit", "validate", "optimize"], "1.25 measured"),
        (["collect", "optimize", "tune"], "Not known yet"),
    ],
)
def test_a_stage_that_has_not_run_hides_nothing_else(workspace: Workspace, gone: list[str], headline: str) -> None:
    for path in (workspace.out / path for stage in gone for path in STAGES[stage].outs):
        if path.is_file():
            path.unlink()
        else:
            path.rename(path.with_name(f"former-{path.name}"))
    words = Parsed(page(workspace)).words
    assert headline in words
    assert [stage for stage in STAGES if f"Not run yet: surrogate {stage}" in words] == gone


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("promised_only", [True, False])
def test_a_design_that_nobody_measured_is_called_a_prediction(workspace: Workspace, promised_only: bool) -> None:
    if promised_only:
        for path in (OPTIMUM, RECOMMENDATION):
            change(workspace, path, measured=None, gain=None)
    words = Parsed(page(workspace)).words
    assert ("Nothing was measured here: the design is a prediction" in words) is promised_only
    assert ("1.234 predicted, not measured" in words) is promised_only
    assert ("better than the best sample" in words) is not promised_only


@pytest.mark.usefixtures("undrawn")
def test_no_better_design_than_the_best_sample_is_said(workspace: Workspace) -> None:
    best = OUTCOME["best_sample"]
    change(workspace, RECOMMENDATION, **best, found_by="collect", promised=None, gain=0.0)
    words = Parsed(page(workspace)).words
    assert "2 measured; the best of the samples No design that the surrogate proposed was better." in words
    assert "promised by the surrogate" not in words


@pytest.mark.usefixtures("undrawn")
def test_a_design_may_hold_text_and_truth_values(workspace: Workspace) -> None:
    params = {"x": 1e-9, "kind": "a<b>", "dry": True}
    change(workspace, RECOMMENDATION, params=params)
    change(workspace, TUNING, evaluations=[evaluation(1, 1.3, **params)])
    text = page(workspace)
    assert "kind a<b>" in Parsed(text).words
    assert "dry true" in Parsed(text).words
    assert "1.3 1e-09 a<b> true" in Parsed(text).words


@pytest.mark.usefixtures("undrawn")
def test_a_picture_that_cannot_be_drawn_is_told_in_its_place(workspace: Workspace) -> None:
    (workspace.root / "box.py").write_text("def draw(designs): raise OSError('no font <i>')")
    parsed = Parsed(page(workspace))
    assert "This picture could not be drawn: OSError: no font <i>" in parsed.words
    assert parsed.elements.count("img") == 19


def test_many_points_are_drawn_as_pixels(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.page_parts.MAX_SVG_BYTES", 100)
    monkeypatch.setattr(pictures, "svg", lambda figure: b"0" * 101)
    monkeypatch.setattr(pictures, "png", lambda figure: b"pixels")
    addresses = {address for address in Parsed(page(workspace)).addresses if address.startswith("data:")}
    assert addresses == {"data:image/png;base64," + base64.b64encode(b"pixels").decode()}


# --- what the last run was


def note(workspace: Workspace, stage: str, key: str, cache: str, seconds: float) -> None:
    assert note_stage(workspace, stage, key=key, cache=cache, cost=Cost(wall_s=seconds), run_id="run-1") == ""


def test_what_came_from_the_cache_keeps_the_cost_of_its_work(workspace: Workspace) -> None:
    for key, cache, seconds in (("a", "miss", 8.0), ("a", "hit", 0.1)):
        note(workspace, "fit", key, cache, seconds)
    entry = last_run(workspace)["stages"]["fit"]
    assert (entry["cache"], entry["wall_s"], entry["worked"]["wall_s"]) == ("hit", 0.1, 8.0)
    note(workspace, "fit", "b", "hit", 0.2)  # of another key: what its work cost is not known here
    note(workspace, "tune", "c", "hit", 0.3)
    assert [entry["worked"] for entry in last_run(workspace)["stages"].values()] == [None, None]


@pytest.mark.usefixtures("undrawn")
def test_the_page_tells_timings_and_how_the_run_ended(workspace: Workspace) -> None:
    assert "Not known: nothing has run here" in Parsed(page(workspace)).words
    note(workspace, "fit", stage_key(STAGES["fit"], workspace), "miss", 8.25)
    note(workspace, "tune", "0" * 64, "hit", 0.5)
    note_end(workspace, status="FAILED", reason="tune: <all> failed", run_id="run-1")
    words = Parsed(page(workspace)).words
    assert "The last run FAILED: tune: <all> failed." in words
    assert "8.2 0.0 0.0 0 tune cached" in words
    assert "all 8.8 8.2" in words
    assert "Out of date: tune." in words  # for its key is not the one it ran under; that of fit is
    note(workspace, "tune", stage_key(STAGES["tune"], workspace), "miss", 0.5)
    note_end(workspace, status="FINISHED", reason="", run_id="run-2")
    words = Parsed(page(workspace)).words
    assert "MLflow run run-2" in words
    assert "FAILED: tune" not in words
    assert "Out of date" not in words


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 2}', b'{"schema": 1, "stages": {"fit": {}}, "run": {}}']
)
def test_a_note_of_the_last_run_that_is_damaged_is_none(workspace: Workspace, content: bytes) -> None:
    note(workspace, "fit", "a", "miss", 1.0)
    (workspace.root / "runs" / "last_run.json").write_bytes(content)
    assert "Not known: nothing has run here" in Parsed(page(workspace)).words
    note(workspace, "tune", "a", "miss", 1.0)
    assert list(last_run(workspace)["stages"]) == ["tune"]


def test_a_note_that_cannot_be_written_is_told(workspace: Workspace) -> None:
    (workspace.root / "runs").write_text("in the way")
    told = note_end(workspace, status="FINISHED", reason="", run_id="run-1")
    assert told.startswith(f"{workspace.root / 'runs' / 'last_run.json'}: not written (")


# --- the command


def report(*options: str) -> Result:
    with mock.patch.dict("os.environ"):  # which the command sets for its libraries
        return CliRunner().invoke(cli, ["report", *options])


@pytest.mark.usefixtures("undrawn")
def test_the_command_prints_where_the_page_is(workspace: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "runs" / "report.html"
    assert report().output == f"{place.as_uri()}\n"
    assert orjson.loads(report("--json").output) == {"page": str(place), "url": place.as_uri()}
    assert report("-o", "new/own page.html").output == f"{tmp_path.as_uri()}/new/own%20page.html\n"
    assert (tmp_path / "new" / "own page.html").read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_other_settings_is_beside_their_outputs(workspace: Workspace, tmp_path: Path) -> None:
    options = ("-S", "fit.seed=1")
    assert report(*options).exit_code == 2
    assert "surrogate run` with the same -S and --params makes them" in report(*options).stderr
    settings = load_settings(tmp_path / "params.yaml", ["fit.seed=1"])
    folder = Workspace.of(tmp_path, settings, foreign=True).out
    folder.mkdir(parents=True)
    (workspace.out / "data").rename(folder / "data")
    assert report(*options).output == f"{(folder / 'report.html').as_uri()}\n"
    assert report().exit_code == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("path", "damage", "told"),
    [
        (DATASET, truncate, "run collect again"),
        ("data/model/model.safetensors", truncate, "run fit again"),
        ("data/model/model.json", truncate, "run fit again"),
        (VALIDATION, truncate, "run validate again"),
        (OPTIMUM, lambda path: path.write_bytes(b"{}"), "run optimize again"),
        (OPTIMUM, lambda path: path.write_bytes(b"[]"), "run optimize again"),
        (RECOMMENDATION, lambda path: path.write_bytes(b'{"params": 1}'), "run tune again"),
    ],
)
def test_a_damaged_file_is_one_line_and_no_page(
    workspace: Workspace, path: str, damage: Callable[[Path], Any], told: str
) -> None:
    damage(workspace.out / path)
    done = report()
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert path.removesuffix("/model.json").removesuffix("/model.safetensors") in done.stderr
    assert told in done.stderr
    assert not (workspace.root / "runs").exists()


def test_where_nothing_has_run_there_is_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = report()
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "expected a settings file, got none" in done.stderr
    (tmp_path / "params.yaml").write_text(PARAMS)
    done = report()
    assert done.exit_code == 2
    assert (
        done.stderr
        == f"surrogate: {tmp_path / 'data'}: expected the outputs of a stage, got none; `surrogate run` makes them\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_place_that_cannot_be_written_is_told(workspace: Workspace) -> None:
    with pytest.raises(BadInput, match=r"^-o: expected a file that can be written, got .*data \("):
        write_page(workspace, Path("data"))


@pytest.mark.slow
def test_the_page_needs_neither_scheduler_nor_tracker() -> None:
    code = "import sys, flows.page; print(sorted({'mlflow', 'prefect', 'dvc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- its pictures


def test_the_histogram_counts_what_failed() -> None:
    figure = pictures.histogram(rows(1.0, 2.0, np.nan, 2.0), -1.0)
    assert figure.axes[0].get_title() == "3 measured, 1 failed"
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3
    assert figure.axes[0].lines[0].get_xdata()[0] == -1.0
    assert pictures.svg(pictures.histogram(rows(2.0, 2.0), 1.0)).startswith(b"<?xml")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_so_far_never_gets_worse(sign: float) -> None:
    parts = {"samples": rows(np.nan, 3.0, 5.0), "rounds": rows(4.0, 1.0), "tuning": rows(2.0)}
    axes = pictures.history(parts, sign).axes[0]
    best = next(line for line in axes.lines if line.get_label() == "best so far")
    assert best.get_ydata()[1:].tolist() == (sign * np.array([3.0, 3.0, 3.0, 1.0, 1.0])).tolist()
    assert axes.get_yscale() == "linear"


def test_values_of_many_magnitudes_are_drawn_on_a_logarithmic_scale() -> None:
    parts = {"samples": rows(0.01, 1.0, 30.0)}
    assert pictures.history(parts, 1.0).axes[0].get_yscale() == "log"
    assert pictures.history(parts, -1.0).axes[0].get_yscale() == "linear"
    assert [axes.get_yscale() for axes in pictures.against_variables(parts, 1.0).axes] == ["log", "log"]


def test_there_is_a_panel_for_each_variable_up_to_a_number() -> None:
    panels = pictures.against_variables({"samples": rows(1.0, 2.0, np.nan)}, 1.0).axes
    assert [(axes.get_xlabel(), axes.get_xscale()) for axes in panels] == [("x", "log"), ("n", "linear")]
    many = Dataset(np.random.default_rng(0).random((5, 30)), np.arange(5.0))
    assert len(pictures.against_variables({"samples": many}, 1.0).axes) == pictures.PANELS


def test_the_best_so_far_is_of_designs_that_meet_the_constraints() -> None:
    status = np.array(["ok", "infeasible", "ok", "failed", "ok"])
    data = Dataset(np.linspace(0, 1, 5).reshape(-1, 1), np.array([5.0, 1.0, 3.0, np.nan, 4.0]), status=status)
    lines = {line.get_label(): line for line in pictures.history({"samples": data}, 1.0).axes[0].lines}
    assert np.asarray(lines["best so far"].get_ydata()).tolist() == [5, 5, 3, 3, 3]


def test_equal_figures_are_equal_files() -> None:
    parts = {"samples": rows(1.0, 2.0)}
    assert pictures.svg(pictures.history(parts, 1.0)) == pictures.svg(pictures.history(parts, 1.0))


def change(workspace: Workspace, path: str, **changed: Any) -> None:
    place = workspace.out / path
    place.write_bytes(orjson.dumps({**orjson.loads(place.read_bytes()), **changed}))
