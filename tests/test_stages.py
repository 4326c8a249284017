"""The bodies of the stages, called as Prefect calls them but without it: what they write, and what they refuse."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from surrogate_core.dataset import Dataset
from surrogate_core.trust import disappointment
from surrogate_core.tuning.guard import DuplicateGuard
from surrogate_core.tuning.identity import param_signature
from surrogate_core.validation.gates import METRICS
from surrogate_core.validation.metrics import miscalibration_area
from tasks.errors import BadInput, StageFailed
from tasks.files import check_files
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
from tasks.outputs import read_model, told_spec
from tasks.reports import read_report
from tasks.settings import load_settings
from tasks.stages import BODIES
from tasks.workspace import Workspace

PARAMS = """\
problem:
  function: {module}:f
  source: {module}.py
  space:
    x: {{type: float, low: -1, high: 2}}
    y: {{type: float, low: 0, high: 3}}
collect: {{n_samples: 8}}
fit: {{surrogate: {{kind: gaussian_process, n_starts: 1, max_iterations: 20}}}}
validate: {{folds: 2}}
optimize: {{rounds: 2, evaluations_per_round: 2, n_starts: 2}}
tune: {{n_trials: 2, evaluations: 2, space: {{kernel: [matern52, rbf]}}}}
execution: {{executor: serial}}
"""
BOWL = "def f(x, y): return {sign} * ((x - 0.7) ** 2 + (y - 1.1) ** 2 + {offset})\n"


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., Workspace]:
    """Makes a workspace with a black box of the given source, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = f"box_{abs(hash(request.node.name))}"  # no other test has imported it

    def make(*overrides: str, source: str | None = None) -> Workspace:
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source)
        (tmp_path / "params.yaml").write_text(PARAMS.format(module=module))
        return Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml", overrides), foreign=False)

    return make


def work(workspace: Workspace, *stages: str) -> list[tuple[int, int, str]]:
    """Runs stages, writes what they return and gives back the progress that was told."""
    told: list[tuple[int, int, str]] = []
    for stage in stages:
        files = BODIES[stage](workspace, "0" * 16, lambda *progress: told.append(progress))
        check_files(files, STAGES[stage].outs)
        workspace.write(files, STAGES[stage].outs)
        workspace.finish(stage, "0" * 16)
    return told


def read(workspace: Workspace, path: str) -> Any:
    return orjson.loads((workspace.out / path).read_bytes())


def test_a_maximized_problem_is_told_in_its_own_direction(project: Callable[..., Workspace]) -> None:
    workspace = project("problem.direction=maximize", source=BOWL.format(sign=-1, offset=-5))
    work(workspace, *STAGES)
    validation = read(workspace, VALIDATION)
    held_out = validation["held_out"]
    assert all(row["lower"] < row["predicted"] < row["upper"] for row in held_out)
    area = miscalibration_area(np.array([row["left_out"] for row in held_out]))
    assert area == pytest.approx(validation["metrics"]["loo_miscalibration_area"])
    final = read(workspace, RECOMMENDATION)
    assert 4.9 < final["measured"] <= 5.0
    assert final["measured"] > final["best_sample"]["measured"]
    assert final["lower"] < final["promised"] < final["upper"]
    assert final["gain"] > 0


def test_progress_counts_specs_and_evaluations_apart(project: Callable[..., Workspace]) -> None:
    told = work(project(source=BOWL.format(sign=1, offset=1)), *STAGES)
    totals = {unit: {total for _, total, its in told if its == unit} for unit in ("specs", "evaluations")}
    assert totals == {"specs": {2}, "evaluations": {8, 4, 2}}
    assert all(done <= total for done, total, _ in told)


def test_a_stage_writes_the_same_wherever_it_evaluates(project: Callable[..., Workspace]) -> None:
    written = []
    for executor in ("serial", "dask"):
        workspace = project(f"execution.executor={executor}", source=BOWL.format(sign=1, offset=1))
        work(workspace, "collect")
        written.append((workspace.out / DATASET).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("executor", ["serial", "threads", "processes", "dask"])
def test_a_function_that_cannot_be_found_is_told_before_it_is_called(
    executor: str, project: Callable[..., Workspace]
) -> None:
    workspace = project(f"execution.executor={executor}", "problem.function=nowhere_at_all:f", source="")
    with pytest.raises(BadInput, match=r"^problem\.function: expected an importable function, got 'nowhere_at_all:f'"):
        work(workspace, "collect")


@pytest.mark.parametrize(
    ("start", "error", "line"),
    [
        (
            "os.kill(os.getpid(), 9)",
            StageFailed,
            "collect: problem.function could not be started: worker died: signal 9",
        ),
        ("os._exit(5)", BadInput, "problem.function: worker died: exit status 5"),
        ("import nowhere_at_all", BadInput, "problem.function: expected an importable function, got "),
    ],
)
def test_a_worker_that_was_killed_as_it_started_is_no_bad_input(
    start: str, error: type[Exception], line: str, project: Callable[..., Workspace]
) -> None:
    source = f"import multiprocessing, os\nif multiprocessing.parent_process(): {start}\ndef f(x, y): return x + y\n"
    workspace = project("execution.executor=processes", "execution.n_workers=1", source=source)
    with pytest.raises(error, match=f"^{re.escape(line)}"):
        work(workspace, "collect")


FAILING = """\
from pathlib import Path
def f(x, y):
    calls = Path({calls!r})
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    if Path({broken!r}).exists():
        raise RuntimeError("licence server down")
    return x * x + y * y
"""


def test_what_failed_altogether_is_tried_again_by_the_next_run(
    project: Callable[..., Workspace], tmp_path: Path
) -> None:
    calls, broken = tmp_path / "calls", tmp_path / "broken"
    workspace = project(source=FAILING.format(calls=str(calls), broken=str(broken)))
    broken.touch()
    for n_calls in (8, 16):
        with pytest.raises(StageFailed, match=r"^collect: all 8 evaluations failed, the first with: RuntimeError: lic"):
            work(workspace, "collect")
        assert len(calls.read_text()) == n_calls
    broken.unlink()
    work(workspace, "collect", "fit", "validate")
    broken.touch()
    with pytest.raises(StageFailed, match=r"^optimize: all 4 evaluations failed"):
        work(workspace, "optimize")
    assert not (workspace.out / OPTIMUM).exists()
    broken.unlink()
    work(workspace, "optimize")
    assert len(calls.read_text()) == 24 + 4 + 4


def test_failures_among_successes_are_rows(project: Callable[..., Workspace]) -> None:
    workspace = project(source="def f(x, y): return 1 / 0 if x < 0 else x * x + y\n")
    work(workspace, *STAGES)
    rows = Dataset.from_bytes((workspace.out / DATASET).read_bytes())
    assert set(rows.status) == {"ok", "failed"}
    assert set(rows.reason[rows.status == "failed"]) == {"ZeroDivisionError: division by zero"}


def test_too_few_rows_for_the_folds_are_told_with_what_failed(project: Callable[..., Workspace]) -> None:
    workspace = project("validate.folds=4", source="def f(x, y): return 1 / 0 if x < 1 else x * x + y\n")
    work(workspace, "collect", "fit")
    with pytest.raises(
        StageFailed, match=r"^validate\.folds: expected at most [123], as so many of 8 .*division by zero"
    ):
        work(workspace, "validate")


def test_a_value_that_rules_out_the_logarithm_ends_neither_optimize_nor_tune(
    project: Callable[..., Workspace],
) -> None:
    """All samples are positive; at the lower bound, where the slope leads, the function is not."""
    workspace = project("fit.surrogate.transform=log", source="def f(x, y): return x + 0.99 + 0.01 * y\n")
    work(workspace, "collect")
    assert Dataset.from_bytes((workspace.out / DATASET).read_bytes()).y.min() > 0
    work(workspace, "fit", "validate", "optimize", "tune")
    assert read(workspace, f"{MODEL}/model.json")["surrogate"]["transform"] == "log"
    assert Dataset.from_bytes((workspace.out / EVALUATIONS).read_bytes()).y.min() < 0
    assert read(workspace, OPTIMUM)["surrogate"]["transform"] == "standardize"
    assert read(workspace, RECOMMENDATION)["surrogate"]["transform"] == "standardize"


def test_a_space_that_runs_out_is_no_failure(project: Callable[..., Workspace]) -> None:
    """All nine points are sampled, so that neither optimize nor tune finds a new one."""
    space = "problem.space={x: {type: integer, low: 0, high: 2}, y: {type: integer, low: 0, high: 2}}"
    workspace = project(space, "collect.sampling=grid", "collect.n_samples=9", source="def f(x, y): return x + y\n")
    work(workspace, *STAGES)
    assert Dataset.from_bytes((workspace.out / EVALUATIONS).read_bytes()).n_samples == 0
    assert read(workspace, RECOMMENDATION)["measured"] == 0


def test_specs_that_all_fail_are_told(project: Callable[..., Workspace]) -> None:
    workspace = project("tune.space={transform: [log]}", source=BOWL.format(sign=-1, offset=1))
    with pytest.raises(StageFailed, match=r"^tune\.space: all 1 specs failed, the first with: "):
        work(workspace, *STAGES)


def test_numbers_are_the_same_however_they_are_written(project: Callable[..., Workspace]) -> None:
    """`1` in the champion's spec is the `1.0` that a spec holds, which the search tries first."""
    workspace = project(
        "fit.surrogate.length_scale=1", "tune.space={length_scale: [0.5, 1]}", source=BOWL.format(sign=1, offset=1)
    )
    work(workspace, *STAGES)
    assert [trial["length_scale"] for trial in read(workspace, TUNING)["trials"]] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("path", "stage", "maker"),
    [
        (DATASET, "fit", "collect"),
        (DATASET, "tune", "collect"),
        (MODEL, "optimize", "fit"),
        (OPTIMUM, "tune", "optimize"),
    ],
)
def test_a_damaged_file_is_told_with_who_makes_it(
    path: str, stage: str, maker: str, project: Callable[..., Workspace]
) -> None:
    workspace = project(source=BOWL.format(sign=1, offset=1))
    work(workspace, *list(STAGES)[: list(STAGES).index(stage)])
    place = workspace.out / path
    file = place if place.is_file() else place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(BadInput, match=rf"{path}: .*; run {maker} again$"):
        work(workspace, stage)


def test_a_file_that_is_no_journal_is_left_and_told(project: Callable[..., Workspace]) -> None:
    workspace = project(source=BOWL.format(sign=1, offset=1))
    journal = workspace.journal("collect", "0" * 16)
    journal.parent.mkdir(parents=True)
    journal.write_bytes(bytes(64))
    with pytest.raises(StageFailed, match=r"is not a journal; name another file or remove this one"):
        work(workspace, "collect")
    assert journal.read_bytes() == bytes(64)


@pytest.mark.parametrize(("verdict", "on_fail"), [("passes", "stop"), ("fails", "warn"), ("stops", "stop")])
def test_a_gate_passes_warns_and_stops(verdict: str, on_fail: str, project: Callable[..., Workspace]) -> None:
    bound = -10.0 if verdict == "passes" else 1.5
    workspace = project(f"gates.on_fail={on_fail}", f"gates.min_r2={bound}", source=BOWL.format(sign=1, offset=1))
    work(workspace, "collect", "fit", "validate")
    assert read(workspace, VALIDATION)["passed"] == (verdict == "passes")
    if verdict == "stops":
        with pytest.raises(StageFailed, match=r"^optimize: the model fails min_r2 1\.5 \(it is "):
            work(workspace, "optimize")
    else:
        work(workspace, "optimize", "tune")
        assert read(workspace, RECOMMENDATION)["gates_passed"] == (verdict == "passes")


COUNTED = """\
from pathlib import Path
def f(x, y):
    calls = Path({calls!r})
    n = len(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text("x" * n)
    {then}
    return {sign} * (x * x + 2 * y)
"""
CHECKED = "validate.gradient_evaluations=10"  # 4 a point, of which two are paid for


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_the_gradient_is_checked_by_evaluations_that_nothing_is_learned_from(
    direction: str, sign: int, project: Callable[..., Workspace], tmp_path: Path
) -> None:
    source = COUNTED.format(calls=str(tmp_path / "calls"), then="", sign=sign)
    gates = "gates={min_gradient_cosine: 0.5, max_gradient_relative_error: 1e-9}"
    spec = "fit.surrogate={kind: gaussian_process, n_starts: 4}"
    workspace = project(CHECKED, gates, spec, f"problem.direction={direction}", source=source)
    told = work(workspace, "collect", "fit", "validate")
    assert len((tmp_path / "calls").read_text()) == 16
    assert told[-1] == (8, 8, "evaluations")
    found = read(workspace, VALIDATION)
    gradient = found["gradient"]
    assert (gradient["source"], gradient["n_evaluations"], gradient["n_failed"]) == ("differences", 8, 0)
    assert len(gradient["points"]) == 2
    for row in (row for row in gradient["slopes"] if row["along"] == "y"):
        assert row["slope"] == pytest.approx(sign * 6, abs=6 * row["slope_error"] + 1e-6)  # the range is 3 wide
    assert found["metrics"]["gradient_cosine"] > 0.5
    assert [gate["passed"] for gate in found["gates"]] == [True, False]
    line = read_report("validate", workspace).line
    assert (
        f"gradient cosine {found['metrics']['gradient_cosine']:.2f}, FAILED max_gradient_relative_error 1e-09" in line
    )
    assert read_report("validate", workspace).metrics["n_evaluations"] == 8
    work(workspace, "optimize", "tune")
    assert Dataset.from_bytes((workspace.out / DATASET).read_bytes()).n_samples == 8
    assert read(workspace, RECOMMENDATION)["n_evaluations"] == len((tmp_path / "calls").read_text()) == 8 + 8 + 4 + 2


def test_a_check_of_the_gradient_goes_on_where_it_was_interrupted(
    project: Callable[..., Workspace], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    then = "if n == 12 or n == 14: raise KeyboardInterrupt if n == 12 else ValueError('no')"
    workspace = project(CHECKED, source=COUNTED.format(calls=str(calls), then=then, sign=1))
    work(workspace, "collect", "fit")
    with pytest.raises(KeyboardInterrupt):
        work(workspace, "validate")
    work(workspace, "validate")
    assert len(calls.read_text()) == 8 + 3 + 1 + 5  # the one that was interrupted is made again
    gradient = read(workspace, VALIDATION)["gradient"]
    assert (gradient["n_evaluations"], gradient["n_failed"]) == (8, 1)
    assert len(gradient["slopes"]) == 3  # one is not known


def test_another_gate_costs_no_evaluation_and_another_black_box_does(
    project: Callable[..., Workspace], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    source = COUNTED.format(calls=str(calls), then="", sign=1)
    work(project(CHECKED, source=source), "collect", "fit", "validate")
    made = []
    for overrides, edit in (([], ""), (["gates={max_rmse: 1}"], ""), ([], "# another"), ([], None)):
        workspace = project(CHECKED, *overrides, source=None if edit is None else source + edit)
        for kept in workspace.results.glob("gradient-*") if edit is None else ():
            kept.write_bytes(kept.read_bytes()[:-9])  # damaged
        before = len(calls.read_text())
        work(workspace, "validate")
        made.append(len(calls.read_text()) - before)
    assert made == [0, 0, 8, 8]


def test_measured_gradients_are_compared_without_an_evaluation(project: Callable[..., Workspace]) -> None:
    source = "def f(x, y): return {'value': x * x + 2 * y, 'gradient': {'x': 2 * x, 'y': 2.0}}\n"
    workspace = project(CHECKED, source=source)
    work(workspace, "collect", "fit", "validate")
    found = read(workspace, VALIDATION)
    assert found["gradient"]["source"] == "rows"
    assert len(found["gradient"]["points"]) == 8
    assert "n_evaluations" not in found["gradient"]
    assert found["metrics"]["gradient_sign_agreement"] > 0.9


@pytest.mark.parametrize(
    ("overrides", "why_not"),
    [
        ([], "validate.gradient_evaluations is 0"),
        (["validate.gradient_evaluations=3"], "validate.gradient_evaluations is 3, and a point takes up to 4"),
    ],
)
def test_a_gate_on_what_was_not_measured_says_so(
    overrides: list[str], why_not: str, project: Callable[..., Workspace]
) -> None:
    gates = "gates={on_fail: stop, min_gradient_cosine: 0.5}"
    workspace = project(*overrides, gates, "validate.learning_curve=false", source=BOWL.format(sign=1, offset=1))
    work(workspace, "collect", "fit", "validate")
    found = read(workspace, VALIDATION)
    assert found["gradient"] == {"why_not": why_not}
    assert found["learning_curve"] is None
    assert "FAILED min_gradient_cosine 0.5 (not measured)" in read_report("validate", workspace).line
    with pytest.raises(StageFailed, match=r"the model fails min_gradient_cosine 0\.5 \(it was not measured\); collect"):
        work(workspace, "optimize")


def test_every_number_of_the_validation_may_be_a_gate(project: Callable[..., Workspace]) -> None:
    workspace = project(CHECKED, source=BOWL.format(sign=1, offset=1))
    work(workspace, "collect", "fit", "validate")
    found = read(workspace, VALIDATION)
    assert set(found["metrics"]) == set(METRICS)
    variables = {row["variable"]: row for row in found["variables"]}
    assert list(variables) == ["x", "y"]
    assert sum(row["relevance"] for row in found["variables"]) == pytest.approx(1)
    metrics = read_report("validate", workspace).metrics
    assert metrics["x.total"] == variables["x"]["total"]
    assert metrics.items() >= found["metrics"].items()


@pytest.mark.parametrize("recalibrate", [True, False])
def test_what_the_held_out_rows_teach_of_intervals_is_used_if_asked(
    recalibrate: bool, project: Callable[..., Workspace]
) -> None:
    """Hyperparameters that are fixed at what is far from the data make the surrogate too sure."""
    fixed = "noise_level: 1e-6, length_scale: 1, output_scale: unit, fixed: [noise_level, length_scale]"
    spec = f"fit.surrogate={{kind: gaussian_process, n_starts: 1, {fixed}}}"
    wild = "def f(x, y): return (x * 7919.7) % 1 + (y * 104729.3) % 1\n"
    workspace = project(spec, f"validate.recalibrate={recalibrate}".lower(), "collect.n_samples=12", source=wild)
    work(workspace, *STAGES)
    learned = read(workspace, VALIDATION)["recalibration"]
    assert learned["helps"] == (
        read(workspace, VALIDATION)["metrics"]["recalibrated_nlpd"] < numbers(workspace)["nlpd"]
    )
    assert learned["used"] == (learned["helps"] and recalibrate)
    factor = learned["factor"] if learned["used"] else 1.0
    assert learned["helps"]
    fitted, first = read_model(workspace, MODEL), read(workspace, OPTIMUM)["rounds"][0]
    place = fitted.space.point(read(workspace, OPTIMUM)["evaluations"][0]["params"])
    assert [first["lower"], first["upper"]] == pytest.approx(np.ravel(fitted.recalibrated(factor).interval(place)))
    everything = Dataset.from_bytes((workspace.out / DATASET).read_bytes())
    for evaluations, folder in ((EVALUATIONS, OPTIMIZED), (TUNED_EVALUATIONS, CHAMPION)):
        everything = everything.append(Dataset.from_bytes((workspace.out / evaluations).read_bytes()))
        made = read_model(workspace, folder)
        stretched = made.state.output.calibration / made.asked.fit(everything).state.output.calibration
        if folder == OPTIMIZED or not recalibrate:  # tune learns a factor of its own
            assert stretched == pytest.approx(factor)


def numbers(workspace: Workspace) -> dict[str, float]:
    metrics: dict[str, float] = read(workspace, VALIDATION)["metrics"]
    return metrics


def test_what_was_left_open_is_asked_for_again_and_what_was_chosen_is_told(project: Callable[..., Workspace]) -> None:
    workspace = project(
        "fit.surrogate.kernel=auto", "tune.space={n_starts: [1, 2]}", source=BOWL.format(sign=1, offset=1)
    )
    work(workspace, *STAGES)
    for path in (VALIDATION, OPTIMUM, RECOMMENDATION):
        found = read(workspace, path)
        assert found["surrogate"]["kernel"] == "auto"
        assert found["chosen"]["kernel"] != "auto"
        assert re.search(r"kernel=auto.*, which chose kernel=\w+", told_spec(found))
    assert ", which chose kernel=" in read_report("fit", workspace).line
    assert read(workspace, TUNING)["champion"]["surrogate"]["kernel"] == "auto"


def test_a_fit_that_had_to_give_way_says_so(project: Callable[..., Workspace]) -> None:
    space = "problem.space={x: {type: integer, low: 0, high: 2}, y: {type: integer, low: 0, high: 2}}"
    workspace = project(space, "collect.sampling=grid", "collect.n_samples=9", source="def f(x, y): return x + y\n")
    work(workspace, "collect")
    rows = Dataset.from_bytes((workspace.out / DATASET).read_bytes())
    workspace.write({DATASET: rows.append(rows.take([0])).to_bytes()}, ())
    work(workspace, "fit")
    assert read_report("fit", workspace).line.endswith("on 10 rows; 1 repeated row merged")


def test_the_number_of_workers_changes_no_byte_of_the_validation(project: Callable[..., Workspace]) -> None:
    written = []
    for execution in ("{executor: serial}", "{executor: threads, n_workers: 3}"):
        workspace = project(f"execution={execution}", source=BOWL.format(sign=1, offset=1))
        work(workspace, "collect", "fit", "validate")
        written.append((workspace.out / VALIDATION).read_bytes())
    assert written[0] == written[1]


def lists(content: Any) -> list[Any]:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [*([content] if isinstance(content, list) else []), *(found for value in inner for found in lists(value))]


def test_no_report_that_dvc_plots_holds_an_empty_list_or_two_columns_of_one_name(
    project: Callable[..., Workspace],
) -> None:
    """DVC's plots fail at the first, and mix up the second, as they join all tables of a file."""
    workspace = project(CHECKED, "gates={}", source=BOWL.format(sign=1, offset=1))
    work(workspace, *STAGES)
    for path in (VALIDATION, OPTIMUM, TUNING):
        tables = [found for found in lists(read(workspace, path)) if not found or isinstance(found[0], dict)]
        assert all(tables), path
        names = [name for table in tables for name in table[0]]
        assert path == TUNING or len(set(names)) == len(names), path
    assert read_report("validate", workspace).line.endswith(", no gates")


def test_a_seed_fixes_every_byte(project: Callable[..., Workspace]) -> None:
    workspace = project(source=BOWL.format(sign=1, offset=1))

    def contents() -> dict[str, bytes]:
        work(workspace, *STAGES)
        found = (path for path in (workspace.out / "data").rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found}

    first = contents()
    assert contents() == first
    assert len(first) >= sum(len(stage.outs) for stage in STAGES.values())
    assert np.isfinite(read(workspace, RECOMMENDATION)["measured"])


@pytest.mark.parametrize(
    ("source", "asked", "on_fail", "verdict"),
    [
        (BOWL.format(sign=1, offset=1), "supported", "stop", "supported"),
        ("def f(x, y): return hash((x, y)) % 1009\n", "doubtful", "warn", "unsupported"),
        ("def f(x, y): return hash((x, y)) % 1009\n", "doubtful", "stop", "unsupported"),
    ],
    ids=["passes", "warns", "stops"],
)
def test_the_verdict_on_the_optimum_passes_warns_and_stops(
    source: str, asked: str, on_fail: str, verdict: str, project: Callable[..., Workspace]
) -> None:
    """A hash is nothing that can be learned: of four designs none is better than the best of 40 samples."""
    workspace = project("collect.n_samples=40", f"gates={{trust: {asked}, on_fail: {on_fail}}}", source=source)
    work(workspace, "collect", "fit", "validate", "optimize")
    told = read(workspace, OPTIMUM)["trust"]
    assert told["verdict"] == verdict
    if verdict != "supported" and on_fail == "stop":
        with pytest.raises(StageFailed, match=r"tune: the optimum fails trust doubtful .it is unsupported.: none of 4"):
            work(workspace, "tune")
        return
    work(workspace, "tune")
    final = read(workspace, RECOMMENDATION)
    assert final["gates_passed"] == (verdict == "supported")
    assert final["failed_gates"] == ([] if verdict == "supported" else ["trust doubtful (it is unsupported)"])


@pytest.mark.parametrize("sign", [1, -1])
def test_promises_are_corrected_by_those_that_were_measured_before(
    sign: int, project: Callable[..., Workspace]
) -> None:
    direction = "minimize" if sign == 1 else "maximize"
    workspace = project(f"problem.direction={direction}", source=BOWL.format(sign=sign, offset=1))
    work(workspace, *STAGES)
    optimum, tuning, final = (read(workspace, path) for path in (OPTIMUM, TUNING, RECOMMENDATION))
    r2 = read(workspace, VALIDATION)["metrics"]["r2"]
    rows = optimum["evaluations"]
    errors = [row["standardized_error"] for row in rows]
    for row, before in zip(rows, [0, 0, 2, 2], strict=True):
        sd = (row["predicted_upper"] - row["predicted_lower"]) / 2 / 1.959963984540054
        assert row["standardized_error"] == pytest.approx(sign * (row["objective"] - row["predicted"]) / sd, rel=1e-3)
        known = disappointment(r2, errors[:before])
        assert row["corrected"] == pytest.approx(row["predicted"] + sign * known.center * sd, rel=1e-6)
        assert row["corrected_upper"] - row["corrected_lower"] == pytest.approx(2 * known.side * sd, rel=1e-6)
    told = final["trust"]
    assert told["n_verified"] == 6
    everything = errors + [row["standardized_error"] for row in tuning["evaluations"]]
    assert told["n_kept"] == sum(abs(error) <= 1.96 for error in everything)
    assert told["measured"] == final["measured"]
    assert 0 <= told["agreement"] <= 1
    search = optimum["search"]
    assert len(search["losses"]) == len(search["statuses"]) == sum(search["optima"]["n_starts"]) == 2
    best = [min(sign * loss for loss in losses if loss is not None) for losses in search["losses"]]
    assert best == sorted(best)
    assert sign * search["optima"]["predicted"][0] == pytest.approx(best[0], abs=1e-6)


OFFLINE = """\
problem:
  data: tests.csv
  columns: {{output: load}}
  direction: {direction}
fit: {{surrogate: {{kind: gaussian_process, n_starts: 8}}}}
validate: {{folds: 2}}
optimize: {{rounds: 3, evaluations_per_round: 2, n_starts: 2}}
tune: {{n_trials: 2, evaluations: 3, space: {{kernel: [matern52, rbf]}}}}
"""


def test_of_a_table_nothing_is_evaluated_and_a_prediction_is_recommended(tmp_path: Path) -> None:
    sign = -1
    X = np.random.default_rng(0).uniform([-1, 0], [2, 3], (12, 2)).round(3)
    y = sign * ((X - [0.7, 1.1]) ** 2).sum(axis=1) + 5
    rows = [f"{a},{b},{'steel' if a > 0 else 'wood'},{value}" for (a, b), value in zip(X, y, strict=True)]
    (tmp_path / "tests.csv").write_text("\n".join(["width,height,kind,load", *rows, "0,0,steel,"]))
    (tmp_path / "params.yaml").write_text(OFFLINE.format(direction="maximize"))
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    work(workspace, *STAGES)
    optimum, final = read(workspace, OPTIMUM), read(workspace, RECOMMENDATION)
    assert optimum["search"]["goal"]["name"] == "conservative"
    for found in (optimum, final):
        assert found["found_by"] == "surrogate"
        assert found["trust"]["probability"] >= 0.5
        assert found["trust"]["n_verified"] == 0
        assert found["measured"] is None
        assert found["gain"] is None
        assert found["lower"] < found["promised"] < found["upper"]
        assert sign * found["promised"] < sign * found["best_sample"]["measured"]
        assert abs(found["params"]["width"] - 0.7) < 0.5
        assert found["params"]["kind"] == "steel"
    assert optimum["n_evaluations"] == 0
    assert (final["n_evaluations"], final["n_failed"]) == (13, 1)
    proposed = Dataset.from_bytes((tmp_path / EVALUATIONS).read_bytes())
    assert proposed.status.tolist() == ["pending"] * 2  # one round
    assert proposed.space.params(proposed.X[0]) == optimum["params"]
    assert [row["measured"] for row in optimum["rounds"]] == [None]
    lines = {stage: read_report(stage, workspace).line for stage in STAGES}
    assert "1 failed (no value); inferred: width float" in lines["collect"]
    assert "2 designs proposed, none measured: there is only a table; promised" in lines["optimize"]
    assert final["trust"]["verdict"] in ("supported", "doubtful")
    assert lines["tune"].endswith(f"not measured: {final['trust']['verdict']}")


def test_where_a_table_tells_nothing_the_report_is_of_the_design_that_was_proposed(tmp_path: Path) -> None:
    X = np.random.default_rng(0).random((24, 2)).round(3)
    rows = [f"{a},{b},{hash((a, b)) % 1009}" for a, b in X]
    (tmp_path / "tests.csv").write_text("\n".join(["x,y,load", *rows]))
    (tmp_path / "params.yaml").write_text(OFFLINE.format(direction="minimize"))
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    work(workspace, "collect", "fit", "validate", "optimize")
    found = read(workspace, OPTIMUM)
    assert found["found_by"] == "collect"
    assert found["trust"]["verdict"] == "unsupported"
    assert found["trust"]["why"].startswith("of the design that was proposed, a value better than the best sample, ")
    assert found["trust"]["probability"] < 0.5
    assert found["trust"]["corrected"] is found["trust"]["agreement"] is None


def test_designs_that_all_fail_are_no_support(project: Callable[..., Workspace]) -> None:
    """The function raises near its minimum: what is promised there was tried, and gave nothing."""
    source = "def f(x, y):\n    v = (x - 0.7) ** 2 + (y - 1.1) ** 2\n    assert v > 0.3, 'too near'\n    return v\n"
    overrides = ("collect.n_samples=24", "optimize.rounds=1", "optimize.evaluations_per_round=1")
    workspace = project(*overrides, "gates={trust: doubtful}", source=source)
    work(workspace, "collect", "fit", "validate", "optimize")
    found = read(workspace, OPTIMUM)
    assert found["n_failed"] == 1
    assert found["trust"]["verdict"] == "unsupported"
    assert found["trust"]["why"].startswith("no promised design gave a value; the best sample, ")


def test_where_no_prediction_beats_the_table_its_best_row_stands(tmp_path: Path) -> None:
    rows = [f"{x},{abs(x - 3)}" for x in range(7)]  # the least value is there, and it is as low as any prediction
    (tmp_path / "tests.csv").write_text("\n".join(["x,load", *rows]))
    (tmp_path / "params.yaml").write_text(OFFLINE.format(direction="minimize"))
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    work(workspace, "collect", "fit", "validate", "optimize")
    found = read(workspace, OPTIMUM)
    assert (found["found_by"], found["measured"], found["params"]) == ("collect", 0.0, {"x": 3})
    assert read_report("optimize", workspace).line.endswith("only a table; the best sample stays, 0: unsupported")


def test_a_design_that_fails_as_samples_did_fails_no_stage(project: Callable[..., Workspace]) -> None:
    """Where the optimum lies nothing can be evaluated: that is no outage."""
    source = "def f(x, y):\n    if x < 1:\n        raise ValueError(f'too small: {x}')\n    return x + y\n"
    workspace = project("collect.n_samples=12", source=source)
    work(workspace, *STAGES)
    final = read(workspace, RECOMMENDATION)
    assert final["n_failed"] > 3
    assert final["params"]["x"] >= 1


def test_rows_that_break_a_measured_constraint_are_too_few_to_validate(project: Callable[..., Workspace]) -> None:
    source = "def f(x, y): return {'value': x, 'constraints': [x + 0.7]}\n"
    workspace = project("collect.n_samples=8", "validate.folds=4", source=source)
    work(workspace, "collect", "fit")
    with pytest.raises(StageFailed, match=r"folds: expected at most \d, .*: constraint 1: expected <= 0, got"):
        work(workspace, "validate")


def test_a_constraint_that_raises_is_one_line(project: Callable[..., Workspace], tmp_path: Path) -> None:
    (tmp_path / "raising_constraint.py").write_text("def met(x, y): return 1 / 0")
    workspace = project("problem.constraints=[raising_constraint:met]", source=BOWL.format(sign=1, offset=0))
    with pytest.raises(BadInput, match=r"problem\.constraints: .* of raising_constraint:met, got ZeroDiv"):
        work(workspace, "collect")


def test_memory_that_is_short_is_foreseen(project: Callable[..., Workspace]) -> None:
    source = BOWL.format(sign=1, offset=1)
    with pytest.raises(
        BadInput, match=r"^collect\.n_samples: expected at most \d+, which fit in memory_budget_mb=20, got"
    ):
        work(project("fit.memory_budget_mb=20", "collect.n_samples=100000", source=source), "collect")
    workspace = project("fit.memory_budget_mb=20", source=source)
    work(workspace, "collect")
    with pytest.raises(StageFailed, match=r"^fit\.memory_budget_mb: expected \d+ or more for gaussian_process"):
        work(workspace, "fit")
    work(project("fit.memory_budget_mb=200", source=source), "fit")


WIDE = "tune.space={kernel: [matern52, matern32, matern12, rbf], prior: [dimension_scaled, flat], n_starts: [1, 2]}"


def test_specs_are_broken_off_by_folds_and_the_seed_fixes_which(project: Callable[..., Workspace]) -> None:
    median = "tune.pruner={kind: median, n_startup_trials: 3}"
    workspace = project(WIDE, "tune.n_trials=12", "validate.folds=4", median, source=BOWL.format(sign=1, offset=1))
    work(workspace, *STAGES)
    found = read(workspace, TUNING)
    statuses = [row["status"] for row in found["trials"]]
    assert set(statuses) == {"ok", "pruned"}
    assert found["trials"][found["chosen"]]["status"] == "ok"
    assert found["reproducible"]
    work(workspace, "tune")
    assert read(workspace, TUNING) == found


def test_folds_computed_anew_for_each_trial_change_no_byte(
    project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = project(source=BOWL.format(sign=1, offset=1))
    work(workspace, *STAGES)
    shared = (workspace.out / TUNING).read_bytes()
    monkeypatch.setenv("SURROGATE_PRECOMPUTE", "0")
    work(workspace, "tune")
    assert (workspace.out / TUNING).read_bytes() == shared


def test_specs_may_be_searched_in_a_database_that_others_share(
    project: Callable[..., Workspace], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    workspace = project(f"tune.storage={url}", source=BOWL.format(sign=1, offset=1))
    work(workspace, *STAGES)
    first = read(workspace, TUNING)
    assert not first["reproducible"]
    work(workspace, "tune")  # joins the study, in which nothing is left to do
    assert [row["nlpd"] for row in read(workspace, TUNING)["trials"]] == [row["nlpd"] for row in first["trials"]]


def test_a_guard_keeps_a_search_from_what_another_one_tries_and_not_from_its_own(
    project: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = project("tune.guard=tried.db", source=BOWL.format(sign=1, offset=1))
    work(workspace, *STAGES)
    first = read(workspace, TUNING)
    work(workspace, "tune")  # as after `surrogate cache clear`
    assert read(workspace, TUNING) == first
    with DuplicateGuard(tmp_path / "tried.db", name=f"tune-{'0' * 16}") as guard:
        guard.add_batch([param_signature(design) for design in workspace.settings.tune_space.expand()])
    with pytest.raises(StageFailed, match=r"^tune\.guard: every spec of tune\.space has been tried by another search"):
        work(workspace, "tune")


def test_a_number_of_workers_that_is_none_is_told_by_the_name_of_its_variable_before_any_work(
    project: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_MAX_CONCURRENT", "many")
    with pytest.raises(BadInput, match=r"^SURROGATE_MAX_CONCURRENT: expected an integer >= 1, got 'many'"):
        project("execution.executor=threads", source=BOWL.format(sign=1, offset=1))
