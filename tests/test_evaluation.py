"""Evaluations: what a black box returns, its failures and retries, and going on from a journal."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from blackboxes import FailsAtFirst, Recorded, act, is_running, running_script, wait_until
from hypothesis import given
from hypothesis import strategies as st

from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.measurement import LARGEST, Evaluation, interpret

KINDS = ["serial", "threads", "processes"]
SERIAL = ExecutorSpec("serial")


def failed(reason: str) -> Evaluation:
    return Evaluation(math.nan, "failed", reason)


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (1.5, 1.5),
        (-0.0, -0.0),
        (2, 2.0),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int8(3), 3.0),
        (np.array(1.5), 1.5),
        (jnp.asarray(1.5), 1.5),
        (jnp.ones(3)[0], 1.0),
        ({"value": np.array(2)}, 2.0),
    ],
    ids=repr,
)
def test_a_real_number_is_understood(returned: Any, value: float) -> None:
    assert interpret(returned) == Evaluation(value, "ok")
    assert type(interpret(returned).value) is float


@pytest.mark.parametrize(
    ("told", "argument"),
    [
        ({"gradient": [1.0, 2.0]}, [0.0, 0.0]),
        ({"gradient": np.array([1.0, 2.0])}, {"a": 0, "b": 0}),
        ({"gradient": {"b": 2, "a": 1}}, {"a": 0, "b": 0}),
        ({"gradient": [jnp.asarray(1.0), 2]}, {"a": 0, "b": 0}),
    ],
    ids=repr,
)
def test_a_gradient_is_read_in_the_order_of_the_variables(told: dict[str, Any], argument: Any) -> None:
    assert interpret({"value": 0.0, **told}, argument) == Evaluation(0.0, "ok", gradient=(1.0, 2.0))


@pytest.mark.parametrize(
    ("constraints", "status", "reason"),
    [
        (-1, "ok", ""),
        (0.0, "ok", ""),
        ([-1, -2.5], "ok", ""),
        (np.array([-1, -2.5]), "ok", ""),
        ({"stress": -1}, "ok", ""),
        (0.25, "infeasible", "constraint 1: expected <= 0, got 0.25"),
        ([-1, 3], "infeasible", "constraint 2: expected <= 0, got 3"),
        ({"stress": -1, "mass": math.nan}, "infeasible", "constraint mass: expected <= 0, got nan"),
    ],
    ids=repr,
)
def test_a_measured_constraint_that_is_not_met_makes_a_row_infeasible(
    constraints: Any, status: Any, reason: str
) -> None:
    assert interpret({"value": 7, "constraints": constraints}) == Evaluation(7.0, status, reason)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"gradient": [1.0]}, "gradient: expected 2 derivatives, got 1"),
        ({"gradient": 1.0}, "gradient: expected 2 derivatives, got float 1.0"),
        ({"gradient": "ab"}, "gradient: expected 2 derivatives, got str 'ab'"),
        ({"gradient": {"a": 1}}, r"gradient: expected one derivative a variable, got those of \['a'\]"),
        ({"gradient": [1.0, None]}, "gradient: expected real numbers, got None"),
        ({"gradient": [1.0, math.nan]}, r"gradient: expected finite numbers, got \[1.0, nan\]"),
        ({"noise": -0.1}, "noise: expected a standard deviation >= 0, got -0.1"),
        ({"noise": "low"}, "noise: expected a standard deviation, got str 'low'"),
        ({"constraints": ["ok"]}, "constraints: expected real numbers, got str 'ok'"),
        ({"value": 1e300}, r"expected a number of magnitude up to 1e\+100, got 1e\+300"),
        ({"value": -2e100}, r"expected a number of magnitude up to 1e\+100, got -2e\+100"),
    ],
    ids=repr,
)
def test_what_goes_with_a_value_is_checked_too(told: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        interpret({"value": 0.0, **told}, {"a": 0, "b": 0})


class Addressed:
    """Says where it is, as most objects do and no two runs have in common."""

    def __repr__(self) -> str:
        return "<Addressed at 0x7f31c2a5c0>"


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (None, "None"),
        (True, "bool True"),
        (np.bool_(False), "bool "),
        ("1.5", "str '1.5'"),
        (1 + 2j, "complex (1+2j)"),
        (np.complex128(1), "complex128 "),
        (Decimal(1), "Decimal Decimal('1')"),
        ([1.5], "list [1.5]"),
        (np.ones(1), "ndarray of shape (1,)"),
        (np.ones((2, 3)), "ndarray of shape (2, 3)"),
        (np.array("a"), "str_ "),
        (np.array(None), "None"),
        (np.ma.masked, "MaskedConstant "),
        (jnp.ones(1), "ArrayImpl of shape (1,)"),
        ({}, "a dict with the keys []"),
        ({"loss": 1}, "a dict with the keys ['loss']"),
        ({"value": None}, "None"),
        ({"value": {"value": 1}}, "dict {'value': 1}"),
        (float, "type <class 'float'>"),
        (Addressed(), "Addressed <Addressed>"),
    ],
    ids=repr,
)
def test_anything_else_is_refused_and_named(returned: Any, got: str) -> None:
    with pytest.raises(TypeError) as caught:
        interpret(returned)
    assert str(caught.value).startswith(f"a black box must return a real number or a dict with 'value', got {got}")


@pytest.mark.parametrize(
    "returned", [math.nan, math.inf, -math.inf, np.float32("nan"), {"value": jnp.asarray(math.inf)}]
)
def test_a_number_that_is_not_finite_is_refused(returned: Any) -> None:
    with pytest.raises(ValueError, match=r"not a finite number: (nan|inf|-inf)"):
        interpret(returned)


@given(st.floats(-LARGEST, LARGEST))
def test_evaluations_survive_the_journal(value: float) -> None:
    for evaluation in (
        Evaluation(value, "ok"),
        Evaluation(value, "ok", "", (value, 0.1), 0.25),
        Evaluation(value, "infeasible", "constraint 1: expected <= 0, got 3"),
        failed("ValueError: negative thickness"),
    ):
        assert Evaluation.from_record(evaluation.to_record()) == evaluation


@pytest.mark.parametrize("kind", KINDS)
def test_failures_are_values_beside_the_successes(kind: str) -> None:
    arguments = {
        "number": (("return", 1.5), Evaluation(1.5, "ok")),
        "dict": (("return", {"value": 2}), Evaluation(2.0, "ok")),
        "error": (("raise", ValueError("negative thickness")), failed("ValueError: negative thickness")),
        "nan": (("return", math.nan), failed("ValueError: not a finite number: nan")),
        "none": (
            ("return", None),
            failed("TypeError: a black box must return a real number or a dict with 'value', got None"),
        ),
    }
    progress: list[tuple[int, int]] = []
    with Evaluator(act, ExecutorSpec(kind, 2)) as evaluator:
        evaluations = evaluator.evaluate(
            list(arguments), [argument for argument, _ in arguments.values()], lambda *counts: progress.append(counts)
        )
    assert evaluations == [evaluation for _, evaluation in arguments.values()]
    assert math.isnan(evaluations[2].value)
    assert (progress[0], progress[-1]) == ((0, 5), (5, 5))
    assert progress == sorted(set(progress))
    assert (evaluator.n_calls, evaluator.n_served) == (5, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n_needed", "expected"),
    [
        (1, Evaluation(4.0, "ok")),
        (3, Evaluation(4.0, "ok")),
        (4, failed("ValueError: not yet at 2.0 (after 3 tries)")),
    ],
)
def test_a_failed_call_is_tried_again(kind: str, n_needed: int, expected: Evaluation, tmp_path: Path) -> None:
    function = FailsAtFirst(tmp_path, n_needed)
    with Journal(tmp_path / "journal.jsonl") as journal:
        with Evaluator(function, ExecutorSpec(kind, 1), retries=2, journal=journal) as evaluator:
            assert evaluator.evaluate(["a"], [2.0]) == [expected]
        assert evaluator.n_calls == min(n_needed, 3)
        assert Evaluation.from_record(journal["a"]) == expected
        assert journal.in_flight == set()
    entries = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    assert len(entries) == 2, "one start and one end, whatever the number of tries"


def test_timeouts_and_deaths_are_tried_again_too() -> None:
    with Evaluator(act, ExecutorSpec("processes", 2), timeout=1, retries=1) as evaluator:
        evaluations = evaluator.evaluate(["slow", "dead", "good"], [("sleep", 60), ("exit", 3), ("return", 1)])
    assert evaluations == [
        failed("timeout: no result within 1 s (after 2 tries)"),
        failed("worker died: exit status 3 (after 2 tries)"),
        Evaluation(1.0, "ok"),
    ]
    assert evaluator.n_calls == 5


def test_what_the_journal_knows_is_not_called_again(tmp_path: Path) -> None:
    calls: list[float] = []

    def square(x: float) -> float:
        calls.append(x)
        if x < 0:
            raise ValueError("negative")
        return x**2

    keys, arguments = ["a", "b", "c"], [0.1, -1.0, 3.0]
    with Journal(tmp_path / "journal.jsonl") as journal, Evaluator(square, SERIAL, journal=journal) as evaluator:
        first = evaluator.evaluate(keys[:2], arguments[:2])
    progress: list[tuple[int, int]] = []
    with Journal(tmp_path / "journal.jsonl") as journal, Evaluator(square, SERIAL, journal=journal) as evaluator:
        second = evaluator.evaluate(keys, arguments, lambda *counts: progress.append(counts))
    assert second == [*first, Evaluation(9.0, "ok")]
    assert calls == arguments, "the failure was not called again either"
    assert progress == [(2, 3), (3, 3)]
    assert (evaluator.n_calls, evaluator.n_served) == (1, 2)


def test_a_batch_that_the_journal_knows_starts_no_pool(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.end("a", Evaluation(1.0, "ok").to_record())
        # What holds a lock cannot travel to a process: opening the pool would raise.
        with Evaluator(threading.Lock().__exit__, journal=journal) as evaluator:
            assert evaluator.evaluate(["a"], [1.0]) == [Evaluation(1.0, "ok")]
            assert evaluator.evaluate([], []) == []
            with pytest.raises(
                ValueError, match=r"^function: expected one that can travel to another process, got __exit__"
            ):
                evaluator.evaluate(["b"], [1.0])


def test_workers_stay_warm_from_one_batch_to_the_next() -> None:
    with Evaluator(_pid, ExecutorSpec("processes", 1)) as evaluator:
        pids = [evaluator.evaluate([str(i)], [None])[0].value for i in range(3)]
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


def _pid(_: None) -> int:
    return os.getpid()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a", "b", "a"], r"keys: expected no key twice, got \['a'\] repeatedly"),
        (["a"], "keys: expected one for each of 3 arguments, got 1"),
    ],
)
def test_keys_name_the_calls_one_by_one(keys: list[str], message: str) -> None:
    with Evaluator(act, SERIAL) as evaluator, pytest.raises(ValueError, match=message):
        evaluator.evaluate(keys, [("return", 1)] * 3)
    assert evaluator.n_calls == 0


@pytest.mark.parametrize("retries", [-1, 1.5, True])
def test_retries_are_counted(retries: Any) -> None:
    with pytest.raises(ValueError, match=f"retries: expected an integer >= 0, got {retries}"):
        Evaluator(act, retries=retries)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_batch_leaves_its_call_in_flight(kind: str, tmp_path: Path) -> None:
    def interrupt(n_done: int, n_total: int) -> None:
        if n_done == 2:
            raise KeyboardInterrupt

    keys, arguments = list("abcde"), [("sleep", 0.01)] * 5
    with Journal(tmp_path / "journal.jsonl") as journal:
        with Evaluator(act, ExecutorSpec(kind, 1), journal=journal) as evaluator, pytest.raises(KeyboardInterrupt):
            evaluator.evaluate(keys, arguments, interrupt)
        assert set(journal.ended) == {"a", "b"}
        assert journal.in_flight == set()
        with Evaluator(act, ExecutorSpec(kind, 1), journal=journal) as evaluator:
            assert [evaluation.value for evaluation in evaluator.evaluate(keys, arguments)] == [0.01] * 5
        assert evaluator.n_calls == 3


KILLED = """
import sys
from pathlib import Path
from blackboxes import Recorded
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal

folder, kind, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Journal(folder / "journal.jsonl") as journal:
    with Evaluator(Recorded(folder / "calls", 0.05), ExecutorSpec(kind, 2), journal=journal) as evaluator:
        evaluator.evaluate([str(i) for i in range(n)], range(n))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_batch_goes_on_and_calls_nothing_twice_that_had_ended(kind: str, tmp_path: Path) -> None:
    n, calls = 24, tmp_path / "calls"
    for n_seen in (4, 10):  # killed twice
        with running_script(KILLED, tmp_path, kind, n) as process:
            wait_until(lambda n_seen=n_seen: calls.exists() and len(calls.read_text().split()) >= n_seen)
            children = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL, err
        wait_until(lambda children=children: not any(map(is_running, children)))
    called_before = Counter(calls.read_text().split())

    with Journal(tmp_path / "journal.jsonl") as journal:
        ended = set(journal.ended)
        assert journal.damaged == 0
        assert 0 < len(ended) < n
        assert len(journal.in_flight) <= 4, "two workers, killed twice"
        assert set(called_before) <= ended | journal.in_flight
        with Evaluator(Recorded(calls, 0.0), ExecutorSpec(kind, 2), journal=journal) as evaluator:
            evaluations = evaluator.evaluate([str(i) for i in range(n)], range(n))
        assert evaluations == [Evaluation(i / 3, "ok") for i in range(n)]
        assert evaluator.n_served == len(ended)
        assert journal.in_flight == set()
    called_afterwards = Counter(calls.read_text().split()) - called_before
    assert set(called_afterwards) == {str(i) for i in range(n)} - ended
    assert set(called_afterwards.values()) == {1}
    assert sum(called_before.values()) <= len(ended) + 4, "a kill costs no more than what was in flight"
