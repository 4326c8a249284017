"""What work costs is measured: nested operations, compilation apart from running, and what a search evaluated."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surrogate_core import (
    Dataset,
    GPSurrogate,
    GradientDescentOptimizer,
    LBFGSOptimizer,
    MultiStartOptimizer,
    SearchSpace,
    SurrogateOptimizer,
)
from surrogate_core.execution import ExecutorSpec
from surrogate_core.performance import PerformanceProfiler, ProfiledOptimizer, performance_monitor
from surrogate_core.performance.profiler import operation, record, timed
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate

SQUARE = SearchSpace.from_bounds([(-1, 1)] * 2)


def times(profiler: PerformanceProfiler) -> dict[str, Any]:
    told: dict[str, Any] = profiler.get_performance_summary()["timing_summary"]
    return told


def test_monitors_are_nested_and_the_outer_one_tells_what_the_inner_ones_do() -> None:
    with performance_monitor("all") as outer:
        for seconds in (0.02, 0.04):
            with performance_monitor("part") as inner:
                time.sleep(seconds)
    assert set(times(outer)) == {"all", "part"}
    assert set(times(inner)) == {"part"}
    part = times(outer)["part"]
    assert (part["call_count"], times(inner)["part"]["call_count"]) == (2, 1)
    assert 0.02 <= part["min_time"] <= part["p50"] <= part["p90"] <= part["max_time"]
    assert part["mean_time"] == pytest.approx(part["total_time"] / 2)
    assert part["min_time"] + part["max_time"] == pytest.approx(part["total_time"])
    assert part["total_time"] <= times(outer)["all"]["total_time"]
    (span,) = outer.spans
    assert [child.name for child in span.children] == ["part", "part"]
    assert [one.name for one in inner.spans] == ["part"]


def test_an_operation_within_its_like_is_part_of_it() -> None:
    with performance_monitor("fit") as outer, operation("other"), operation("fit"), performance_monitor("fit") as inner:
        time.sleep(0.01)
    assert times(outer)["fit"]["call_count"] == times(inner)["fit"]["call_count"] == 1
    assert times(outer)["fit"]["total_time"] == outer.cost.wall_s
    assert outer.spans[0].children[0].children[0].children[0].name == "fit"


def test_after_a_monitor_nothing_is_noted() -> None:
    with performance_monitor("one") as profiler:
        pass
    with operation("two"):
        record("three", 1.0)
    assert set(times(profiler)) == {"one"}


def test_compilation_is_seen_once_and_apart_from_the_run() -> None:
    function = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))
    x = np.ones(64)
    with performance_monitor("whole") as whole:
        for name in ("first", "second"):
            with operation(name):
                function(x)
    first, second = (times(whole)[name] for name in ("first", "second"))
    assert first["compile_time"] > 0
    assert second["compile_time"] == 0
    assert first["run_time"] == pytest.approx(first["total_time"] - first["compile_time"])
    assert times(whole)["whole"]["compile_time"] >= first["compile_time"]


def test_what_is_compiled_within_a_compilation_is_counted_once() -> None:
    inner = jax.jit(lambda x: jnp.linalg.solve(x @ x.T + 5 * jnp.eye(5), x))

    def outer(x: jax.Array) -> jax.Array:
        for _ in range(20):
            x = jax.jit(lambda z: inner(z) + 1)(x)  # traced while the outer one is
        return x

    with performance_monitor("it") as profiler:
        jax.jit(outer)(np.ones((5, 5)))
    assert 0 < profiler.cost.compile_s <= profiler.cost.wall_s


def test_what_jax_does_in_the_background_is_waited_for() -> None:
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: jnp.tanh(y @ y / 500), x))
    x = jnp.ones((500, 500))
    work(x).block_until_ready()
    with performance_monitor("it") as profiler:
        kept = work(x)
    began = time.perf_counter()
    kept.block_until_ready()
    assert time.perf_counter() - began < 0.2 * profiler.cost.wall_s


def test_the_memory_of_what_was_monitored_is_told() -> None:
    with performance_monitor("it") as profiler:
        np.ones(25_000_000)  # 200 MB, freed at once
    memory = profiler.get_performance_summary()["memory_summary"]
    assert 180 < memory["increase_mb"] < 220
    assert memory["peak_mb"] - memory["start_mb"] == pytest.approx(memory["increase_mb"])
    with performance_monitor("it", profiler=PerformanceProfiler(enable_memory_profiling=False)) as unwatched:
        pass
    assert unwatched.get_performance_summary()["memory_summary"] == {}


def test_children_count_unless_they_are_servers_in_a_session_of_their_own() -> None:
    # Long enough to be looked at more than once, also where the machine is busy.
    spin = [sys.executable, "-c", "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass"]
    with performance_monitor("worker", "detailed", include_children=True) as worker:
        subprocess.run(spin, check=True)
    with performance_monitor("server", "detailed", include_children=True) as server:
        subprocess.run(spin, check=True, start_new_session=True)
    assert worker.cost.cpu_s > 0.3 > server.cost.cpu_s


def test_a_body_that_fails_is_measured_too() -> None:
    profiler = PerformanceProfiler()
    with pytest.raises(KeyError), performance_monitor("it", profiler=profiler):
        {}[time.sleep(0.01)]
    assert times(profiler)["it"]["total_time"] >= 0.01


class Counting(PerformanceProfiler):
    """As a user would write one."""

    def __init__(self) -> None:
        super().__init__(enable_memory_profiling=True)
        self.custom_metrics: dict[str, float] = {}

    def get_extended_summary(self) -> dict[str, Any]:
        return {**self.get_performance_summary(), "custom_metrics": self.custom_metrics}


def test_a_subclass_is_used_where_it_is_given_and_may_have_several_monitors() -> None:
    mine = Counting()
    with performance_monitor("first", profiler=mine) as told:
        assert told is mine
        with mine.operation("within"):
            mine.custom_metrics["error"] = 0.5
    with mine.monitor("second"):
        mine.count("things", 3)
    summary = mine.get_extended_summary()
    assert set(summary["timing_summary"]) == {"first", "within", "second"}
    assert (summary["custom_metrics"], summary["counters"]) == ({"error": 0.5}, {"things": 3})


def test_what_is_timed_is_named_where_somebody_measures() -> None:
    @timed("adding")
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert add(1) == 3
    with performance_monitor("it") as profiler:
        assert add(1, b=4) == 5
    assert times(profiler)["adding"]["call_count"] == 1


def test_the_library_names_its_own_operations() -> None:
    with performance_monitor("it") as profiler:
        fitted = SurrogateOptimizer(surrogate_params={"n_starts": 2}).fit_surrogate(bowl())
        fitted.optimize()
    assert {"fit", "search", "function_evaluations"} <= set(times(profiler))


def test_full_has_functions_and_only_the_outermost_has() -> None:
    def slow() -> None:
        sum(range(200_000))

    with performance_monitor("outer", "full") as outer, performance_monitor("inner", "full") as inner:
        slow()
    assert "slow" in [row["function"] for row in outer.functions]
    assert inner.functions == []


def test_detailed_samples_memory_and_basic_has_no_thread() -> None:
    with performance_monitor("it", "detailed") as sampled:
        time.sleep(0.5)
    with performance_monitor("it", "basic") as plain:
        time.sleep(0.2)
    assert len(sampled.to_dict()["memory_samples"]) >= 2
    assert plain.to_dict()["memory_samples"] == []


def test_a_trace_of_jax_is_written_on_request(tmp_path: Path) -> None:
    with performance_monitor("it", jax_trace=tmp_path):
        jnp.ones(3).sum().block_until_ready()
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_there_are_three_levels() -> None:
    with (
        pytest.raises(ValueError, match=r"^profile_level: expected one of 'basic', 'detailed', 'full', got 'some'$"),
        performance_monitor("it", "some"),  # type: ignore[arg-type]
    ):
        pass


def profiled() -> PerformanceProfiler:
    with performance_monitor("outer", "detailed") as profiler:
        for _ in range(2):
            with operation("inner"):
                jax.jit(lambda x: x + time.perf_counter())(np.ones(3))
                time.sleep(0.06)
    return profiler


def test_a_profile_is_written_in_formats_that_viewers_read(tmp_path: Path) -> None:
    profiler = profiled()
    for ending in (".json", ".speedscope.json", ".trace.json", ".html", ".svg", ".png"):
        profiler.save(tmp_path / "deep" / f"mine{ending}")
    read = {path.name: path.read_bytes() for path in (tmp_path / "deep").iterdir()}
    told = json.loads(read["mine.json"])
    assert told["timing_summary"]["inner"]["call_count"] == 2
    assert [child["name"] for child in told["spans"][0]["children"]] == ["inner", "inner"]
    assert told["memory_samples"]
    scope = json.loads(read["mine.speedscope.json"])
    (profile,) = scope["profiles"]
    names = [scope["shared"]["frames"][event["frame"]]["name"] for event in profile["events"]]
    kinds = [event["type"] for event in profile["events"]]
    assert list(zip(names, kinds, strict=True)) == [
        ("outer", "O"), ("inner", "O"), ("inner", "C"), ("inner", "O"), ("inner", "C"), ("outer", "C"),
    ]  # fmt: skip
    at = [event["at"] for event in profile["events"]]
    assert at == sorted(at)
    assert at[-1] == profile["endValue"]
    events = json.loads(read["mine.trace.json"])["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["outer", "inner", "inner"]
    assert any(event["ph"] == "C" for event in events)
    assert b"outer" in read["mine.svg"] or b"<svg" in read["mine.svg"]
    assert read["mine.png"].startswith(b"\x89PNG")
    page = read["mine.html"].decode()
    assert "<h1>outer</h1>" in page
    assert '<tr><td>inner</td><td class="n">2</td>' in page
    assert "Memory" in page
    assert "Functions" not in page  # nobody watched them
    with pytest.raises(ValueError, match=r"^path: expected a name that ends with one of \.json, .*, got 'mine\.txt'$"):
        profiler.save(tmp_path / "mine.txt")


def test_a_page_tells_the_memory_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([{"in_use_mb": 100.0, "peak_mb": 200.0}, {"in_use_mb": 310.0, "peak_mb": 420.0}])
    monkeypatch.setattr("surrogate_core.performance.memory._device_memory", lambda: next(told))
    profiled().save(tmp_path / "it.html")
    devices = [line for line in (tmp_path / "it.html").read_text().splitlines() if "<td>devices</td>" in line]
    assert re.findall(r"<td class=\"n\">(\d+)</td>", devices[0]) == ["100", "310", "420"]


def bowl(n: int = 24) -> Dataset:
    X = 2 * sample("sobol", n, 2, seed=1) - 1
    return Dataset(X, ((X - 0.3) ** 2).sum(axis=1), SQUARE)


@pytest.fixture(scope="module")
def fitted() -> FittedSurrogate:
    return GPSurrogate(n_starts=2).fit(bowl())


@pytest.mark.parametrize(
    "base", [LBFGSOptimizer(), GradientDescentOptimizer(max_iterations=30), MultiStartOptimizer(n_starts=4)], ids=str
)
def test_a_search_that_is_one_program_tells_its_own_evaluations(base: Any, fitted: FittedSurrogate) -> None:
    found = ProfiledOptimizer(base).optimize(fitted)
    plain = base.optimize(fitted)
    told = found.metadata["performance_profile"]
    assert (found.x == plain.x).all()
    assert found.nfev == plain.nfev == told["gradient_evaluations"]["count"]
    screened = 512 if isinstance(base, MultiStartOptimizer) else 0
    assert told["function_evaluations"]["count"] >= found.nfev + screened
    for evaluations in (told["function_evaluations"], told["gradient_evaluations"]):
        assert evaluations["total_time"] > 0
        assert evaluations["mean_time"] == pytest.approx(evaluations["total_time"] / evaluations["count"])
    assert told["wall_time"] == pytest.approx(told["compile_time"] + told["run_time"])
    assert told["memory"]["peak_mb"] > 0


class Own:
    """A surrogate that JAX knows nothing of, which counts for itself."""

    space = SQUARE

    def __init__(self) -> None:
        self.n = {"predict": 0, "gradient": 0}

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.n["predict"] += len(X)
        return np.asarray(((X - 0.3) ** 2).sum(axis=1))

    def gradient(self, X: np.ndarray) -> np.ndarray:
        self.n["gradient"] += len(X)
        return np.asarray(2 * (X - 0.3))


@pytest.mark.parametrize("kind", ["serial", "threads", "processes"])
def test_the_evaluations_of_a_surrogate_of_ones_own_are_counted_wherever_they_are(kind: Any) -> None:
    own, how = Own(), {"executor": ExecutorSpec(kind, 2)}
    found = ProfiledOptimizer(MultiStartOptimizer(n_starts=3)).optimize(own, **how)
    told = found.metadata["performance_profile"]
    assert told["gradient_evaluations"]["count"] == told["function_evaluations"]["count"] == found.nfev
    if kind != "processes":  # what screens and tells the optimum is not of the search
        assert own.n["gradient"] == found.nfev <= own.n["predict"]


class Foreign:
    """An optimizer of somebody else's."""

    def optimize(self, surrogate: Any, x0: Any, bounds: Any) -> Any:
        from scipy.optimize import minimize

        return minimize(
            lambda x: float(surrogate.predict(x[None])[0]), x0, jac=lambda x: surrogate.gradient(x[None])[0]
        )


def test_an_optimizer_that_does_not_count_is_counted(fitted: FittedSurrogate) -> None:
    for surrogate in (fitted, Own()):
        found = ProfiledOptimizer(Foreign()).optimize(surrogate, [0.9, -0.9], None)
        told = found.metadata["performance_profile"]
        assert told["function_evaluations"]["count"] == found.nfev
        assert told["gradient_evaluations"]["count"] == found.njev


def test_the_profile_of_a_search_is_written_where_it_is_asked_for(tmp_path: Path, fitted: FittedSurrogate) -> None:
    path = tmp_path / "profile.json"
    ProfiledOptimizer(LBFGSOptimizer(), profile_level="full", output_file=path).optimize(fitted)
    told = json.loads(path.read_text())
    assert told["timing_summary"]["LBFGSOptimizer"]["call_count"] == 1
    assert told["functions"]
