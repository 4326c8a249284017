"""The journal: what was ended is kept whatever happens to the file, and damage is never believed."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surrogate_core.journal import Journal

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | finite | text
values = st.recursive(
    scalars, lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3), max_leaves=6
)
records = st.dictionaries(text, values, max_size=3)
# A key with None for a record is only started.
histories = st.dictionaries(text, st.none() | records, min_size=2, max_size=5)


@contextmanager
def file_name() -> Iterator[Path]:
    """Hypothesis runs many examples in one call of a test: each has a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "journal.jsonl"


def write(path: Path, history: dict[str, dict[str, Any] | None]) -> list[tuple[int, str, dict[str, Any] | None]]:
    """Write the history and return, for each line, where it ends and what it says."""
    lines: list[tuple[int, str, dict[str, Any] | None]] = []
    with Journal(path) as journal:
        for key, record in history.items():
            journal.start(key)
            lines.append((path.stat().st_size, key, None))
            if record is not None:
                journal.end(key, record)
                lines.append((path.stat().st_size, key, record))
    return lines


def bits(value: Any) -> Any:
    """The value with each float as its bytes: 0.0 == -0.0, 1 == 1.0 == True are told apart."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return type(value), value


@given(histories)
@settings(max_examples=50)
def test_what_was_recorded_is_there_after_reopening_bit_for_bit(history: dict[str, dict[str, Any] | None]) -> None:
    with file_name() as path:
        write(path, history)
        with Journal(path) as journal:
            assert bits(dict(journal.ended)) == bits({key: r for key, r in history.items() if r is not None})
            assert journal.in_flight == {key for key, record in history.items() if record is None}
            assert journal.damaged == 0


@given(history=histories, data=st.data())
@settings(max_examples=80)
def test_a_file_cut_anywhere_keeps_what_was_ended_before_the_cut(history: dict[str, Any], data: st.DataObject) -> None:
    with file_name() as path:
        lines = write(path, history)
        n_bytes = data.draw(st.integers(0, lines[-1][0]))
        os.truncate(path, n_bytes)
        whole = [(key, record) for end, key, record in lines if end <= n_bytes]
        ended = {key: record for key, record in whole if record is not None}
        with Journal(path) as journal:
            assert dict(journal.ended) == ended
            assert journal.in_flight == {key for key, _ in whole} - set(ended)
            journal.end("added later", {"value": 1.5})
        with Journal(path) as journal:
            assert dict(journal.ended) == ended | {"added later": {"value": 1.5}}
            assert journal.damaged == 0


@given(history=histories, data=st.data(), flip=st.integers(1, 255))
@settings(max_examples=120)
def test_a_flipped_byte_never_yields_a_wrong_record(history: dict[str, Any], data: st.DataObject, flip: int) -> None:
    with file_name() as path:
        lines = write(path, history)
        content = bytearray(path.read_bytes())
        i = data.draw(st.integers(0, len(content) - 1))
        content[i] ^= flip
        path.write_bytes(content)
        hit = next(n for n, (end, _, _) in enumerate(lines) if i < end)
        is_newline = i == lines[hit][0] - 1  # the loss of one glues two lines together
        kept = {key: record for _, key, record in lines[:hit] + lines[hit + 1 + is_newline :] if record is not None}
        with Journal(path) as journal:
            assert dict(journal.ended) == kept
            journal.end("added later", {})
        with Journal(path) as journal:
            assert dict(journal.ended) == kept | {"added later": {}}


def test_a_damaged_line_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, {"a": {"value": 1}, "b": {"value": 2}, "c": {"value": 3}})
    path.write_bytes(path.read_bytes().replace(b'"value":2', b'"value":7'))
    with Journal(path) as journal:
        assert dict(journal.ended) == {"a": {"value": 1}, "c": {"value": 3}}
        assert journal.in_flight == {"b"}
        assert journal.damaged == 1


def test_a_damaged_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    (n_kept, _, _), _ = write(path, {"a": {"value": 1}})
    path.write_bytes(path.read_bytes().replace(b'"value":1', b'"value":7'))
    with Journal(path) as journal:
        assert "a" not in journal
        assert journal.damaged == 0
    assert path.stat().st_size == n_kept


def test_lines_are_json(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl", {"a": {"value": 0.1}})
    entries = [orjson.loads(line)["entry"] for line in (tmp_path / "journal.jsonl").read_bytes().splitlines()]
    assert entries == [{"start": "a"}, {"end": "a", "record": {"value": 0.1}}]


@given(text, st.lists(values.filter(lambda what: what is not None), min_size=1, max_size=3))
@settings(max_examples=50)
def test_what_is_begun_is_counted_and_what_was_said_of_it_last_is_there(key: str, said: list[Any]) -> None:
    with file_name() as path:
        with Journal(path) as journal:
            assert journal.begun(key) == (0, None)
            journal.start("another", {"x": 1})
            for times, what in enumerate(said, 1):
                journal.start(key, what)
                assert bits(journal.begun(key)[1]) == bits(what)
                assert journal.begun(key)[0] == times
        with Journal(path) as journal:
            assert (journal.begun(key)[0], bits(journal.begun(key)[1])) == (len(said), bits(said[-1]))
            assert journal.in_flight == {key, "another"}
            journal.start(key)
            assert journal.begun(key) == (len(said) + 1, None), "of the last time nothing was said"
            journal.end(key, {})
            assert journal.begun(key) == (0, None)
        with Journal(path) as journal:
            assert journal.begun(key) == (0, None)
            journal.start(key)
            assert journal.begun(key) == (1, None)
            assert key in journal, "which keeps its result until it ends again"


def test_each_process_that_was_killed_counts(tmp_path: Path) -> None:
    for times in range(1, 4):
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.start("a", {"times": times})
            assert journal.begun("a") == (times, {"times": times})


def test_what_is_said_comes_back_as_json_has_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.start("a", {"layers": (1, 2), "rate": np.float64(0.5)})
        assert journal.begun("a") == (1, {"layers": [1, 2], "rate": 0.5})
        for falsy in (False, 0, "", [], {}):
            journal.start("b", falsy)
            assert bits(journal.begun("b")[1]) == bits(falsy)


def test_a_new_journal_makes_its_folders_and_is_empty(tmp_path: Path) -> None:
    with Journal(tmp_path / "some" / "folder" / "journal.jsonl") as journal:
        assert journal.path.exists()
        assert (dict(journal.ended), journal.in_flight, journal.damaged) == ({}, set(), 0)


def test_keys_are_looked_up_once_ended(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.start("a")
        assert "a" not in journal
        assert journal.in_flight == {"a"}
        journal.end("a", {"value": (1, 2)})
        assert "a" in journal
        assert journal["a"] == {"value": [1, 2]}, "as it will be read back"
        assert journal.in_flight == set()
        with pytest.raises(KeyError):
            journal["b"]
        with pytest.raises(TypeError):
            journal.ended["b"] = {}  # type: ignore[index]


def test_what_is_dropped_is_forgotten_until_it_ends_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.end("a", {"value": 1})
        journal.end("b", {"value": 2})
        journal.drop("a")
        assert dict(journal.ended) == {"b": {"value": 2}}
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert "a" not in journal
        journal.end("a", {"value": 3})
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert dict(journal.ended) == {"a": {"value": 3}, "b": {"value": 2}}


def test_a_later_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    for value in (1, 2):
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.end("a", {"value": value})
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal["a"] == {"value": 2}


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"value": float("nan")}, ValueError, "journal: record.value: not a finite number: nan"),
        ({"a": [0.0, {"b": float("-inf")}]}, ValueError, r"journal: record.a\[1\].b: not a finite number: -inf"),
        ({"value": np.float64("inf")}, ValueError, "not a finite number: inf"),
        ({"value": np.ones(2)}, TypeError, "journal: record.value: expected a JSON value, got ndarray"),
        ({"value": {1, 2}}, TypeError, "expected a JSON value, got set"),
        ({1: 2}, TypeError, "key must be str"),
        ({"value": 2**64}, TypeError, "64-bit"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(
    tmp_path: Path, record: Any, error: type[Exception], message: str
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        with pytest.raises(error, match=message):
            journal.end("a", record)
        with pytest.raises(error, match=message.replace("record", "what")):
            journal.start("a", record)
        assert "a" not in journal
        assert journal.begun("a") == (0, None)
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"{}", b'{"a": 1}\n{"b": 2}\n', b"\0" * 9, b"\n\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_full_disk_raises_and_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.write
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.end("a", {"value": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, line: whole_write(fd, line[:10]))
            with pytest.raises(OSError, match="No space left"):
                journal.end("b", {"value": 2})
        assert "b" not in journal
        journal.end("c", {"value": 3})
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert dict(journal.ended) == {"a": {"value": 1}, "c": {"value": 3}}
        assert journal.damaged == 0


def test_every_end_is_one_synced_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    whole_write, whole_sync = os.write, os.fsync
    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "write", lambda fd, line: (calls.append("write"), whole_write(fd, line))[1])
        monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), whole_sync(fd))[1])
        journal.start("a")
        journal.end("a", {"text": "x" * 100_000})
    assert calls == ["write", "write", "sync"]


class Clock:
    """The seconds of a journal, and when in them it was brought to the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.synced = 100.0, list[float]()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(os, "fsync", lambda fd: self.synced.append(self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_results_are_brought_to_the_disk_together_within_the_seconds_given(tmp_path: Path, clock: Clock) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        clock.synced.clear()
        for i in range(30):
            clock.now = 100.0 + i / 8
            journal.end(f"{i}", {}, every=1.0)
        assert clock.synced == [101.0, 102.0, 103.0]
        clock.now = 200.0
        journal.end("much later", {}, every=1.0)
        assert clock.synced[3:] == [200.0], "at once, as it was long since"
        clock.now = 200.5
        journal.end("soon", {}, every=1.0)
        assert len(clock.synced) == 4
        journal.end("for certain", {})
        assert clock.synced[4:] == [200.5]
        clock.now = 200.6
        journal.end("soon again", {}, every=1.0)
        clock.now = 200.7
        journal.drop("soon again")
        assert clock.synced[5:] == [200.7]
    assert len(clock.synced) == 6, "nothing is left to bring there"


def test_a_start_that_follows_brings_results_to_the_disk_when_it_is_time(tmp_path: Path, clock: Clock) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        clock.synced.clear()
        journal.start("a")
        clock.now = 900.0
        journal.start("b")
        assert not clock.synced, "there are none"
        journal.end("a", {}, every=1.0)
        clock.now = 900.5
        journal.end("b", {}, every=1.0)
        journal.start("c")
        assert clock.synced == [900.0]
        clock.now = 901.0
        journal.start("d")
        assert clock.synced == [900.0, 901.0]


def test_what_is_not_on_the_disk_is_brought_there_at_the_end(tmp_path: Path, clock: Clock) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        clock.synced.clear()
        journal.end("a", {}, every=60.0)
        assert not clock.synced
    assert clock.synced == [100.0]
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.start("b")
    assert clock.synced == [100.0], "a start alone is not worth it"


KILLED = """
import os, signal, sys
from surrogate_core.journal import Journal
journal = Journal(sys.argv[1])
journal.start("a", {"x": 1})
journal.end("a", {"value": 1}, every=3600.0)
journal.start("b", {"x": 2})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_result_survives_a_kill_before_it_is_on_the_disk(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "journal.jsonl"], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert dict(journal.ended) == {"a": {"value": 1}}
        assert journal.begun("b") == (1, {"x": 2})


def test_threads_may_share_a_journal(tmp_path: Path) -> None:
    def work(name: int) -> None:
        for i in range(20):
            journal.start(f"{name}-{i}")
            journal.end(f"{name}-{i}", {"value": i})

    with Journal(tmp_path / "journal.jsonl") as journal:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert dict(journal.ended) == {f"{name}-{i}": {"value": i} for name in range(4) for i in range(20)}
        assert (journal.in_flight, journal.damaged) == (set(), 0)


def test_a_closed_journal_can_be_read_but_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.end("a", {"value": 1})
    journal.close()
    journal.close()
    assert journal["a"] == {"value": 1}
    with pytest.raises(ValueError, match="is closed"):
        journal.start("b")
