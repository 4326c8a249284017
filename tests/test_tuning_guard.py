"""The duplicate guard: a set of signatures that many share, in which nothing is granted twice and nothing lost."""

from __future__ import annotations

import gc
import itertools
import math
import pickle
import random
import signal
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Listener
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import psutil
import pytest
from blackboxes import running_script, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import free_port, redis_server

from surrogate_core.tuning.changes import Changes
from surrogate_core.tuning.guard import DuplicateGuard, PlaceNotReached

SERVERS = [pytest.param("redis", marks=pytest.mark.slow), pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=["file", "sqlite", *SERVERS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of each kind that there is."""
    folder = tmp_path_factory.mktemp("guard")
    if request.param in ("redis", "postgresql"):
        return str(request.getfixturevalue(f"{request.param}_url"))
    return str(folder / "guard.db") if request.param == "file" else f"sqlite:///{folder}/guard.db"


@pytest.fixture
def guard(place: str) -> Iterator[DuplicateGuard]:
    """One that knows nothing."""
    with DuplicateGuard(place, name=uuid4().hex) as guard:
        yield guard


# Of any place


def test_what_was_added_is_seen_until_it_is_removed(guard: DuplicateGuard) -> None:
    assert not guard.seen("a")
    assert guard.add("a")
    assert not guard.add("a")
    assert guard.seen("a")
    assert "a" in guard
    assert 7 not in guard
    assert len(guard) == 1
    assert guard.remove("a")
    assert not guard.remove("a")
    assert not guard.seen("a")
    assert guard.add("a")


def test_a_claim_is_granted_once_and_again_after_removal(guard: DuplicateGuard) -> None:
    assert [guard.claim("a"), guard.claim("a"), guard.add("a")] == [True, False, False]
    guard.remove("a")
    assert guard.claim("a")


def test_many_at_once_are_told_in_their_order_and_counted_once(guard: DuplicateGuard) -> None:
    guard.add("b", 1.5)
    assert guard.add_batch(["c", "a", "b", "a"]) == 2
    assert guard.seen_batch(["a", "x", "b", "a"]) == [True, False, True, True]
    assert guard.value("b") == 1.5
    assert guard.add_batch([]) == 0
    assert guard.seen_batch([]) == []
    many = [f"{i:032x}" for i in range(2500)]
    assert guard.add_batch(iter(many)) == 2500
    assert guard.seen_batch([*many, "y"]) == [True] * 2500 + [False]
    assert len(guard) == 2503


def test_a_duplicate_is_answered_with_what_came_of_it(guard: DuplicateGuard) -> None:
    assert guard.value("a") is None
    guard.claim("a")
    assert guard.value("a") is None
    guard.record("a", 1)
    guard.record("a", 2.5)
    assert not guard.add("a", 9.0)
    assert guard.value("a") == 2.5
    guard.record("never claimed", 3.0)
    assert not guard.claim("never claimed")
    guard.remove("a")
    assert guard.value("a") is None


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 2**53 + 1, 7])
def test_values_come_back_bit_for_bit(guard: DuplicateGuard, value: float) -> None:
    guard.add("added", value)
    guard.record("recorded", value)
    for signature in ("added", "recorded"):
        assert struct.pack("<d", guard.value(signature)) == struct.pack("<d", value)


def test_names_do_not_meddle_with_each_other(place: str) -> None:
    name = uuid4().hex
    with DuplicateGuard(place, name=f"a {name}") as one, DuplicateGuard(place, name=f"A {name}") as other:
        assert one.add("s", 1.0)
        assert not other.seen("s")
        assert other.add_batch(["s", "t"]) == 2
        assert one.remove("s")
        assert other.seen_batch(["s", "t"]) == [True, True]
        assert (len(one), len(other)) == (0, 2)


texts = st.sampled_from(["a", "A", "a ", "ä", "a\0", "a\0b", "'; --", "%", "0" * 32, "x" * 1000, "#"]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, str, *tuple[Any, ...]]]:
    """What two guards are asked, of few signatures, so that they come again: which of them, and the call."""
    some = st.sampled_from(draw(st.lists(texts, min_size=2, max_size=3, unique=True)))
    which = st.integers(0, 1)
    calls = st.one_of(
        st.tuples(which, st.sampled_from(["claim", "remove", "seen", "value"]), some),
        st.tuples(which, st.just("add"), some, st.none() | numbers),
        st.tuples(which, st.just("record"), some, numbers),
        st.tuples(which, st.sampled_from(["add_batch", "seen_batch"]), st.lists(some, max_size=4)),
    )
    return draw(st.lists(calls, max_size=16))


@given(history=histories())
@settings(max_examples=40)
def test_two_guards_of_one_place_are_one_set(place: str, history: list[tuple[int, str, *tuple[Any, ...]]]) -> None:
    name, model = uuid4().hex, dict[str, float | None]()
    with DuplicateGuard(place, name=name) as one, DuplicateGuard(place, name=name) as other:
        for which, verb, *arguments in history:
            told = getattr((one, other)[which], verb)(*arguments)
            assert told == expected(model, verb, *arguments), (verb, arguments)
        assert len(one) == len(model)
        assert other.seen_batch(list(model)) == [True] * len(model)
        assert {signature: one.value(signature) for signature in model} == model


def expected(model: dict[str, float | None], verb: str, argument: Any, value: float | None = None) -> Any:
    """What a guard tells whose set is a dict."""
    if verb == "seen_batch":
        return [signature in model for signature in argument]
    if verb == "add_batch":
        new = dict.fromkeys(signature for signature in argument if signature not in model)
        model.update(new)
        return len(new)
    is_there = argument in model
    if verb in ("add", "claim"):
        model.setdefault(argument, value)
        return not is_there
    if verb == "record":
        model[argument] = value
        return None
    if verb == "remove":
        model.pop(argument, None)
        return is_there
    return is_there if verb == "seen" else model.get(argument)


def test_a_guard_travels_as_its_place_and_name(guard: DuplicateGuard) -> None:
    guard.add("a", 1.5)
    with pickle.loads(pickle.dumps(guard)) as other:
        assert (other.place, other.name) == (guard.place, guard.name)
        assert other.value("a") == 1.5
        assert not other.claim("a")
        assert other.claim("b")
    assert guard.seen("b")


def test_threads_are_granted_each_signature_once(guard: DuplicateGuard) -> None:
    def claim_all(seed: int) -> list[str]:
        mine = [f"s{i}" for i in range(150)]
        random.Random(seed).shuffle(mine)
        return [signature for signature in mine if guard.claim(signature)]

    with ThreadPoolExecutor(8) as pool:
        granted = [signature for part in pool.map(claim_all, range(8)) for signature in part]
    assert sorted(granted) == sorted(f"s{i}" for i in range(150))


def test_closing_waits_for_the_calls_of_other_threads(tmp_path: Path) -> None:
    guard, said = DuplicateGuard(tmp_path / "guard"), list[str]()

    def work(name: str) -> None:
        try:
            for i in itertools.count():
                guard.claim(f"{name}{i}")
                guard.seen(f"{name}{i}")
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    guard.close()
    for thread in threads:
        thread.join()
    assert said == [f"guard: {tmp_path / 'guard'} is closed"] * 3


def test_a_closed_guard_says_so(place: str) -> None:
    guard = DuplicateGuard(place, name=uuid4().hex)
    guard.close()
    guard.close()
    for call in (lambda: guard.seen("a"), lambda: guard.add_batch(["a"]), lambda: len(guard)):
        with pytest.raises(ValueError, match=r"guard: .* is closed"):
            call()


def test_one_name_is_default(place: str) -> None:
    with DuplicateGuard(place) as one, DuplicateGuard(place, name="default") as other:
        one.add("a")
        assert other.remove("a")


CLAIM = """
import os, random, sys, time
from surrogate_core.tuning.guard import DuplicateGuard
place, name, folder, number, n = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
mine = [f"shared {i}" for i in range(n // 2)] + [f"own {i}" for i in range(number, n // 2, 8)]
random.Random(number).shuffle(mine)
open(f"{folder}/ready {number}", "w").close()
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.002)
with DuplicateGuard(place, name=name) as guard:
    granted = [signature for signature in mine if guard.claim(signature)]
print("\\n".join(granted))
"""


@pytest.mark.slow
def test_eight_processes_that_claim_are_granted_each_signature_exactly_once(place: str, tmp_path: Path) -> None:
    n, name = (400 if place.startswith(("redis", "postgresql")) else 20_000), uuid4().hex
    if place.startswith("sqlite"):
        place = str(tmp_path / "new" / "guard.db")  # which all of them make at once
    with ExitStack() as scripts:
        workers = [
            scripts.enter_context(running_script(CLAIM, place, name, tmp_path, number, n)) for number in range(8)
        ]
        wait_until(lambda: all((tmp_path / f"ready {number}").exists() for number in range(8)))
        (tmp_path / "go").touch()
        told = [worker.communicate() for worker in workers]
    assert [error for _, error in told] == [""] * 8
    granted = [signature for output, _ in told for signature in output.splitlines()]
    pool = [f"{kind} {i}" for kind in ("own", "shared") for i in range(n // 2)]
    assert sorted(granted) == sorted(pool)
    with DuplicateGuard(place, name=name) as guard:
        assert len(guard) == n


# Of a file


FORK = """
import os, sys
from surrogate_core.tuning.guard import DuplicateGuard
with DuplicateGuard(sys.argv[1]) as guard:
    guard.add("before")
    store = guard._store
    child = os.fork()
    granted = sum(guard.claim(f"s{i}") for i in range(300))
    if not child:
        assert guard.seen("before")
        assert guard._store is not store
        os.write(1, b"%d\\n" % granted)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.write(1, b"%d\\n" % granted)
"""


@pytest.mark.slow
def test_a_forked_process_has_connections_of_its_own(tmp_path: Path) -> None:
    with running_script(FORK, tmp_path / "guard.db") as script:
        output, error = script.communicate()
    assert error == ""
    assert sum(map(int, output.split())) == 300
    assert integrity(tmp_path / "guard.db") == "ok"


WRITE = """
import itertools, os, sys
from surrogate_core.tuning.guard import DuplicateGuard
path, told, worker = sys.argv[1:]
guard, log = DuplicateGuard(path), os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def tell(line):
    os.write(log, (line + "\\n").encode())
for i in itertools.count():
    guard.add_batch([f"{worker} {i} {j}" for j in range(30)])
    tell(f"batch {worker} {i}")
    if guard.claim(f"shared {i}"):
        guard.record(f"shared {i}", i / 3)
        tell(f"shared {i}")
    guard.add(f"{worker} {i} gone")
    tell(f"begins {worker} {i}")
    guard.remove(f"{worker} {i} gone")
    tell(f"removed {worker} {i}")
"""


@pytest.mark.slow
def test_processes_killed_amid_writing_leave_a_whole_set_with_all_that_was_told(tmp_path: Path) -> None:
    path, moments = tmp_path / "guard.db", random.Random(0)
    for generation in range(6):
        workers = [f"{generation}-{number}" for number in range(3)]
        logs = {worker: tmp_path / f"{worker}.log" for worker in workers}
        with ExitStack() as scripts:
            processes = [scripts.enter_context(running_script(WRITE, path, logs[w], w)) for w in workers]
            wait_until(lambda logs=logs: all(log.exists() and log.stat().st_size for log in logs.values()))
            for process in processes:
                time.sleep(moments.uniform(0, 0.15))
                process.send_signal(signal.SIGKILL)
        assert integrity(path) == "ok"
        with DuplicateGuard(path) as guard:
            for worker, log in logs.items():
                check_what_is_left(guard, worker, log.read_text().splitlines())
            guard.add("known")
            with DuplicateGuard(path) as other:
                other.remove("known")
            assert not guard.seen("known")
            assert guard.claim(f"after {generation}")


def check_what_is_left(guard: DuplicateGuard, worker: str, told: list[str]) -> None:
    begun = 0
    for line in told:
        verb, *rest = line.split()
        if verb == "batch":
            begun = int(rest[1]) + 1
            assert all(guard.seen_batch([f"{worker} {begun - 1} {j}" for j in range(30)])), "what was told is there"
        elif verb == "shared":
            assert guard.value(f"shared {rest[0]}") == int(rest[0]) / 3
        elif verb == "removed":
            assert not guard.seen(f"{worker} {rest[1]} gone")
    last = guard.seen_batch([f"{worker} {begun} {j}" for j in range(30)])
    assert len(set(last)) == 1, "a batch is there as a whole or not at all"


def looks_up(guard: DuplicateGuard, *signatures: str) -> list[bool]:
    """What it tells of each once it has been asked so often that there is a snapshot, if there can be one."""
    return [[guard.seen(signature) for _ in range(20)][-1] for signature in signatures]


def has_snapshot(guard: DuplicateGuard) -> bool:
    return bool(guard._store._mine._connection.in_transaction)  # type: ignore[attr-defined]


@pytest.fixture
def snapshots_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that none ends of itself while a slow machine runs a test."""
    monkeypatch.setattr("surrogate_core.tuning.guard_sqlite.SNAPSHOT", 5.0)


@pytest.mark.usefixtures("snapshots_that_last")
def test_what_another_changes_is_seen_by_the_next_lookup(tmp_path: Path) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard, DuplicateGuard(tmp_path / "guard.db", name="other") as other:
        with DuplicateGuard(tmp_path / "guard.db") as same:
            for change, is_there in [
                (lambda: same.add("a"), True),
                (lambda: same.remove("a"), False),
                (lambda: same.record("a", 1.5), True),
                (lambda: guard.remove("a"), False),
                (lambda: same.add_batch(["b", "a"]), True),
                (lambda: other.add("a"), True),
            ]:
                looks_up(guard, "a", "x")
                assert has_snapshot(guard)
                change()
                assert guard.seen("a") is is_there
                assert not guard.seen("x")
        guard.record("a", 2.5)
        assert (guard.value("a"), len(guard), len(other)) == (2.5, 2, 1)


def test_a_snapshot_ends_by_itself_so_that_the_log_can_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surrogate_core.tuning.guard_sqlite.SNAPSHOT", 0.5)

    def is_written_back() -> bool:
        with closing(sqlite3.connect(tmp_path / "guard.db", timeout=0)) as connection:
            return connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

    with DuplicateGuard(tmp_path / "guard.db") as guard, DuplicateGuard(tmp_path / "guard.db") as other:
        guard.add("a")
        looks_up(guard, "a")
        other.add("b")
        assert not is_written_back()
        wait_until(is_written_back)
        assert not has_snapshot(guard)
        assert looks_up(guard, "a", "b") == [True, True]
        looks_up(other, "a")
        run_thread(looks_up, other, "b")
    wait_until(lambda: n_open(tmp_path) == 0)


def test_what_is_added_while_a_snapshot_ends_by_itself_is_there_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surrogate_core.tuning.guard_sqlite.SNAPSHOT", 1e-4)
    with DuplicateGuard(tmp_path / "guard.db") as guard, DuplicateGuard(tmp_path / "guard.db") as other:
        for i in range(600):
            assert not any(guard.seen(f"{i}") for _ in range(i % 12))
            time.sleep(1e-5 * (i % 25))  # so that it ends at each moment of what follows
            assert guard.add(f"{i}") if i % 3 else guard.add_batch([f"{i}"]) == 1
            assert other.seen(f"{i}")


@pytest.mark.usefixtures("snapshots_that_last")
@pytest.mark.parametrize("has_taken_effect", [False, True])
def test_a_change_that_was_broken_off_leaves_no_wrong_answer(tmp_path: Path, has_taken_effect: bool) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard, DuplicateGuard(tmp_path / "guard.db") as other:
        guard.add("a")
        assert looks_up(guard, "a", "b") == [True, False]
        Changes(f"{guard.place}-changes").begin()  # by a process that was killed then
        assert looks_up(guard, "a", "b") == [True, False]
        assert not has_snapshot(guard)
        if has_taken_effect:
            with closing(sqlite3.connect(guard.place)) as connection, connection:
                connection.execute("UPDATE surrogate_tried SET signature = 'b'")
        assert looks_up(guard, "a", "b") == [not has_taken_effect, has_taken_effect]
        assert other.add("c")
        assert looks_up(guard, "a", "b", "c") == [not has_taken_effect, has_taken_effect, True]
        assert has_snapshot(guard), "from here on, they can be trusted again"


def test_a_change_is_counted_while_no_other_can_change_anything(tmp_path: Path) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        guard.add("a")
        changes = Changes(f"{guard.place}-changes")
        for change in (
            lambda _: guard.add("b"),
            lambda _: guard.record("a", 0.5),
            lambda _: guard.add_batch(["c", "d"]),
            lambda _: guard.remove("a"),
        ):
            before = changes.n_begun
            with closing(sqlite3.connect(guard.place, isolation_level=None)) as theirs:
                theirs.execute("BEGIN IMMEDIATE")
                thread = threading.Thread(target=change, args=(None,))
                thread.start()
                thread.join(0.05)
                assert thread.is_alive()
                assert changes.n_begun == changes.n_ended == before
                theirs.execute("COMMIT")
            thread.join()
            assert changes.n_begun == changes.n_ended == before + 1


@pytest.mark.parametrize("content", [None, b"", b"abc", b"\xff" * 16, bytes(8) + b"\x01" * 8, b"\x01" * 8 + bytes(8)])
def test_without_a_count_of_changes_or_with_a_wrong_one_the_set_is_the_same(
    tmp_path: Path, content: bytes | None
) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        guard.add("a")
    if content is None:
        (tmp_path / "guard.db-changes").unlink()
    else:
        (tmp_path / "guard.db-changes").write_bytes(content)
    with DuplicateGuard(tmp_path / "guard.db") as guard, DuplicateGuard(tmp_path / "guard.db") as other:
        assert looks_up(guard, "a", "b") == [True, False]
        assert other.remove("a")
        assert other.add("b")
        assert looks_up(guard, "a", "b") == [False, True]
        assert other.add_batch(["a", "c"]) == 2
        assert looks_up(guard, "a", "b", "c") == [True, True, True]


OBEY = """
import sys
from multiprocessing.connection import Client
from surrogate_core.tuning.guard import DuplicateGuard
with DuplicateGuard(sys.argv[1]) as guard, Client(sys.argv[2]) as line:
    while call := line.recv():
        line.send(getattr(guard, call[0])(*call[1:]))
"""


@pytest.mark.slow
def test_what_another_process_changes_is_seen_as_soon_as_its_call_has_returned(tmp_path: Path) -> None:
    some = [f"s{i}" for i in range(30)]
    drawn, model, n_snapshots = random.Random(0), dict[str, float | None](), 0
    with (
        DuplicateGuard(tmp_path / "guard.db") as guard,
        Listener(str(tmp_path / "line")) as listener,
        running_script(OBEY, tmp_path / "guard.db", tmp_path / "line"),
        listener.accept() as line,
    ):
        for _ in range(1500):
            verb, changed = drawn.choice(["add", "remove", "claim", "record", "add_batch"]), set(drawn.sample(some, 1))
            if verb == "add_batch":
                changed = set(drawn.sample(some, 4))
            argument = list(changed) if verb == "add_batch" else min(changed)
            call = (verb, argument, 0.5) if verb == "record" else (verb, argument)
            line.send(call)
            while not line.poll():
                asked = drawn.choice(some)
                assert guard.seen(asked) is (asked in model) or asked in changed
            told = line.recv()
            assert told == expected(model, *call)
            first = min(changed)
            if drawn.random() < 0.3:
                assert guard.claim(first) is expected(model, "claim", first)
            else:
                assert guard.seen(first) is (first in model)
            for asked in drawn.choices(some, k=drawn.choice([0, 3, 30])):
                assert guard.seen(asked) is (asked in model)
            n_snapshots += has_snapshot(guard)
        line.send(None)
    assert n_snapshots > 300


ADD_AND_REMOVE = """
import itertools, sys
from multiprocessing.connection import Client
from surrogate_core.tuning.guard import DuplicateGuard
with DuplicateGuard(sys.argv[1]) as guard, Client(sys.argv[2]) as line:
    for i in itertools.count():
        guard.add(f"{sys.argv[3]} {i}")
        line.send(i)
        guard.remove(f"{sys.argv[3]} {i - 3}")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_wrong_answer_in_others(tmp_path: Path) -> None:
    moments = random.Random(0)
    with DuplicateGuard(tmp_path / "guard.db") as guard, Listener(str(tmp_path / "line")) as listener:
        for generation in range(10):
            with (
                running_script(ADD_AND_REMOVE, guard.place, tmp_path / "line", generation) as process,
                listener.accept() as line,
            ):
                last, end = line.recv(), time.monotonic() + moments.uniform(0, 0.1)
                while time.monotonic() < end:
                    if line.poll():
                        last = line.recv()
                        assert not guard.seen(f"{generation} {last - 4}"), "its removal has returned"
                    assert not guard.seen("never")
                process.send_signal(signal.SIGKILL)
                process.wait()
                with suppress(EOFError):
                    while True:
                        last = line.recv()
            near = [f"{generation} {last + i}" for i in range(-4, 3)]
            first = [guard.seen(signature) for signature in near]
            assert first[0] is False
            assert first[2:5] == [last >= 2, last >= 1, True]  # it begins with 0
            with DuplicateGuard(guard.place) as other:
                assert looks_up(other, *near) == looks_up(guard, *near) == first
            assert guard.claim(near[-1])


def test_what_another_thread_changes_is_seen_as_soon_as_its_call_has_returned(tmp_path: Path) -> None:
    added: SimpleQueue[str | None] = SimpleQueue()

    def add(guard: DuplicateGuard, number: int) -> None:
        for i in range(300):
            assert guard.add(f"{number} {i}")
            added.put(f"{number} {i}")
        added.put(None)

    def look(guard: DuplicateGuard) -> int:
        n = 0
        while (signature := added.get(timeout=30)) is not None:
            assert all(guard.seen(signature) for _ in range(15))
            assert not guard.seen(f"{signature} never")
            n += 1
        return n

    with DuplicateGuard(tmp_path / "guard.db") as guard, ThreadPoolExecutor(4) as pool:
        done = [pool.submit(add, guard, number) for number in range(2)]
        assert sum(pool.map(look, [guard, guard])) == 600
        for one in done:
            one.result()


def test_a_file_that_another_writes_is_waited_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "theirs.db", isolation_level=None, check_same_thread=False)) as theirs:
        theirs.execute("CREATE TABLE theirs (something)")
        theirs.execute("BEGIN IMMEDIATE")  # under which SQLite lets nobody begin a write-ahead log, and does not wait
        commit = threading.Timer(0.3, theirs.execute, ["COMMIT"])
        commit.start()
        with DuplicateGuard(tmp_path / "theirs.db") as guard:
            assert guard.claim("a")
        commit.join()


def test_threads_that_have_ended_leave_no_open_files(tmp_path: Path) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        for i in range(3):
            run_thread(guard.add, f"first {i}")
        n_first = n_open(tmp_path)
        for i in range(30):
            run_thread(guard.add, f"then {i}")
        assert n_open(tmp_path) <= n_first
        assert len(guard) == 33
    assert n_open(tmp_path) == 0


def n_open(folder: Path) -> int:
    """How many of its files this process has open."""
    gc.collect()
    return sum(Path(file.path).parent == folder for file in psutil.Process().open_files())


def run_thread(call: Any, *arguments: Any) -> None:
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


FULL = """
import resource, sys
from surrogate_core.tuning.guard import DuplicateGuard
with DuplicateGuard(sys.argv[1]) as guard:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    n = 0
    try:
        while True:
            guard.add_batch([f"{n} {j}" for j in range(100)])
            n += 100
    except OSError:
        print(n)
    try:
        guard.add("one more " + "x" * 100_000)
    except OSError as error:
        print(error.strerror or error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    guard.add("after")
"""


@pytest.mark.slow
def test_a_file_that_cannot_grow_raises_and_loses_nothing(tmp_path: Path) -> None:
    with running_script(FULL, tmp_path / "guard.db") as script:
        output, error = script.communicate()
    assert error == ""
    n = int(output.split()[0])
    assert "I/O error" in output
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        assert len(guard) == n + 1
        assert guard.seen("after")


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        guard._store._mine.ask("PRAGMA max_page_count = 5")  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="No space left on device"):
            guard.add_batch([f"{i}" for i in range(5000)])
        assert len(guard) == 0
        assert guard.add("a")


def test_a_path_is_the_same_wherever_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DuplicateGuard("some/folder/guard.db") as guard, DuplicateGuard("sqlite:///some/folder/guard.db") as same:
        guard.add("a")
        travelling = pickle.dumps(guard)
        assert same.seen("a")
        assert same.place == str(tmp_path / "some" / "folder" / "guard.db")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        with pickle.loads(travelling) as other:
            assert other.seen("a")


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


# Bad input


@pytest.mark.parametrize("signature", [None, 3, b"a", "", "\ud800", ["a"]])
def test_a_signature_that_is_no_text_is_refused(tmp_path: Path, signature: Any) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        for call in (guard.seen, guard.add, guard.claim, guard.remove, guard.value):
            with pytest.raises(ValueError, match=r"^signature: expected a text that is not empty, got "):
                call(signature)
        for call in (guard.seen_batch, guard.add_batch):
            with pytest.raises(ValueError, match=r"^signatures\[1\]: expected a text that is not empty, got "):
                call(["a", signature])
        with pytest.raises(ValueError, match=r"^signatures: expected several, got 'abc'"):
            guard.add_batch("abc")
        assert len(guard) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", True, 10**400, [1.0]])
def test_a_value_that_is_no_finite_number_is_refused(tmp_path: Path, value: Any) -> None:
    with DuplicateGuard(tmp_path / "guard.db") as guard:
        for call in (guard.add, guard.record):
            with pytest.raises(ValueError, match=r"^value: expected a finite number, got "):
                call("a", value)
        with pytest.raises(ValueError, match="got None"):
            guard.record("a", None)  # type: ignore[arg-type]
        assert len(guard) == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (None, "place: expected a path or a URL, got None"),
        ("", "place: expected a path or a URL, got ''"),
        (b"guard.db", "place: expected a path or a URL, got b'guard.db'"),
        ("a\0b", "place: expected a path or a URL"),
        ("http://127.0.0.1/x", "place: expected a path, or a URL redis://.* got 'http://127.0.0.1/x'"),
        ("redis://127.0.0.1:port/0", "place: expected redis://host:port/0, got 'redis://127.0.0.1:port/0'"),
        ("sqlite://", "place: expected a file, which processes can share, got 'sqlite://'"),
        ("sqlite:///:memory:", "place: expected a file, which processes can share"),
    ],
)
def test_a_place_that_is_none_is_refused(place: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        DuplicateGuard(place)


@pytest.mark.parametrize("name", [None, "", 3, "\ud800"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match=r"^name: expected a text that is not empty, got "):
        DuplicateGuard(tmp_path / "guard.db", name=name)


def test_a_file_that_is_no_set_of_signatures_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "data.csv"
    text.write_text("x,y\n" * 1000)
    others = tmp_path / "others.db"
    with closing(sqlite3.connect(others)) as connection:
        connection.execute("CREATE TABLE surrogate_tried (something)")
    expected = "^place: expected a SQLite database that can be written, got "
    with pytest.raises(ValueError, match=f"{expected}{text} .file is not a database"):
        DuplicateGuard(text)
    with pytest.raises(ValueError, match=f"{expected}{others} .no such column"):
        DuplicateGuard(others)
    for folder in (tmp_path, text / "guard.db"):
        with pytest.raises(ValueError, match=f"^place: expected the path of a SQLite file, got {folder}"):
            DuplicateGuard(folder)
    assert text.read_text() == "x,y\n" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "others.db"]


def test_a_damaged_file_is_found_and_never_believed(tmp_path: Path) -> None:
    path, signatures = tmp_path / "guard.db", [f"s{i}" for i in range(5000)]
    with DuplicateGuard(path) as guard:
        guard.add_batch(signatures)
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(ValueError, match=f"^place: .* got {path} .*malformed"), DuplicateGuard(path) as guard:
        guard.seen_batch(signatures)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"^place: .* got {path} .*malformed"), DuplicateGuard(path) as guard:
        guard.seen_batch(signatures)


@pytest.mark.parametrize(
    ("scheme", "server"), [("redis", "Redis"), ("postgresql+psycopg", "database")], ids=["redis", "postgresql"]
)
def test_a_server_that_does_not_answer_is_named_without_its_password(scheme: str, server: str) -> None:

    pytest.importorskip("redis" if scheme == "redis" else "psycopg")
    url = f"{scheme}://me:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(PlaceNotReached, match=f"^place: expected a {server} server that answers, got ") as told:
        DuplicateGuard(url)
    assert f"{scheme}://me:***@127.0.0.1" in str(told.value)
    assert "refused" in str(told.value)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("package", "url"), [("redis", "redis://127.0.0.1/0"), ("psycopg", "postgresql+psycopg://127.0.0.1/x")]
)
def test_a_missing_package_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch, package: str, url: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"^place: .*pip install 'surrogate-lab\[(redis|postgresql)\]'"):
        DuplicateGuard(url)


# Of servers


@pytest.mark.slow
def test_redis_holds_nothing_but_one_key_of_a_name(redis_url: str) -> None:
    import redis

    name = uuid4().hex
    with closing(redis.Redis.from_url(redis_url)) as client, DuplicateGuard(redis_url, name=name) as guard:
        before = set(client.keys())
        guard.add_batch(["a", "b"])
        guard.record("c", 0.5)
        assert set(client.keys()) - before == {f"surrogate:{name}:tried".encode()}
        client.set(f"surrogate:{name} x:tried", "something else")
        with pytest.raises(OSError, match="WRONGTYPE"):
            DuplicateGuard(redis_url, name=f"{name} x").add("a")


@pytest.mark.slow
def test_a_server_that_went_away_is_told_and_found_again() -> None:

    port = free_port()
    with redis_server(port) as url:
        guard = DuplicateGuard(url)
        guard.add("a")
    with pytest.raises(PlaceNotReached):
        guard.seen("a")
    with redis_server(port), guard:
        assert guard.add("a")


@pytest.mark.slow
def test_a_table_of_somebody_else_is_refused(postgresql_url: str) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA theirs"))
        connection.execute(sa.text("CREATE TABLE theirs.surrogate_tried (something integer)"))
    engine.dispose()
    url = f"{postgresql_url}?options=-csearch_path%3Dtheirs"
    with pytest.raises(ValueError, match=r"^place: expected a database where surrogate_tried can be kept, got "):
        DuplicateGuard(url)
