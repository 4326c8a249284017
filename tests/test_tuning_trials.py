"""Trials: what is loaded of a journal or a folder, lazily or not, whatever is damaged."""

from __future__ import annotations

import gc
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surrogate_core.journal import Journal
from surrogate_core.tuning import trials as module
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.trials import LOOK, PREFIX, Trial, load_trials

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | finite | texts
params = st.dictionaries(texts, scalars | st.lists(scalars, max_size=2) | st.dictionaries(texts, scalars, max_size=2))
raws = st.none() | st.lists(st.integers(0, 9) | finite, max_size=3).map(tuple)
statuses = st.sampled_from(["ok", "failed", "pruned", "running"])
numbers = finite | st.just(math.nan)
all_trials = st.builds(
    Trial, st.integers(0, 99), params, numbers, statuses, texts, st.lists(numbers, max_size=3).map(tuple), raws
)


def shown(trial: Trial) -> str:
    """All there is of a trial, with NaN as itself."""
    return repr((trial.number, trial.key, trial.value, trial.status, trial.reason, trial.steps, trial.raw))


def of(i: int) -> Trial:
    return Trial(i, {"x": i / 7, "layers": [i, None], "inner": {"a": "b"}}, i / 3, "ok", "", (), (i / 7, 0))


def told(path: Path, **options: Any) -> dict[str, str]:
    return {key: shown(trial) for key, trial in load_trials(path, **options).items()}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three that ended, a failed one, one that is running, and lines of other kinds."""
    path = tmp_path / "study.jsonl"
    with Journal(path) as written:
        written.end("study", {"seed": 0})
        for i in range(3):
            written.start(f"{PREFIX}{i}", {"params": of(i).params})
            written.end(f"{PREFIX}{i}", of(i).to_record())
        written.end(f"{PREFIX}3", Trial(3, {"x": 1}, math.nan, "failed", "too hot").to_record())
        written.end("batch/0", {"first": 0, "n": 4})
        written.start(f"{PREFIX}4", {"params": {"x": 2}})
    return path


def folder_of(path: Path, n: int) -> Path:
    path.mkdir()
    for i in range(n):
        (path / f"trial_{i}.json").write_text(json.dumps(of(i).to_record()))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "files", 12)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURROGATE_JSON_CACHE", raising=False)
    monkeypatch.delenv("SURROGATE_JSON_CACHE_SIZE", raising=False)


# Records


@given(all_trials)
@example(Trial(0, {}, 1.0, "failed"))
@example(Trial(0, {}, math.nan, "ok"))
@example(Trial(0, {}, math.nan, "pruned", "", (math.nan, -0.0)))
@example(Trial(0, {"a": None}, -0.0, "ok", "", (), ()))
def test_a_trial_comes_back_from_its_record_through_json(trial: Trial) -> None:
    assert shown(Trial.from_record(trial.to_record(), trial.number)) == shown(trial)
    read = orjson.loads(orjson.dumps(trial.to_record()))
    assert shown(Trial.from_record(read, trial.number)) == shown(trial)
    assert shown(Trial.from_record({**read, "number": trial.number})) == shown(trial)


def test_what_goes_without_saying_is_not_written() -> None:
    assert Trial(7, {"x": 1}, 0.5, "ok").to_record() == {"params": {"x": 1}, "value": 0.5}
    assert Trial(7, {"x": 1}, math.nan, "failed").to_record() == {"params": {"x": 1}, "value": None}


def test_a_trial_has_the_key_of_its_design() -> None:
    assert of(1).key == trial_key(of(1).params)


WRONG = [
    ([], "params: expected an object, got none in []"),
    ("text", "params: expected an object, got none in 'text'"),
    (3, "params: expected an object, got none in 3"),
    (None, "params: expected an object, got none in None"),
    ({}, "params: expected an object, got none in {}"),
    ({"value": 1.0}, "params: expected an object, got none in {'value': 1.0}"),
    ({"params": None, "value": 1.0}, "params: expected an object, got None"),
    ({"params": [1], "value": 1.0}, "params: expected an object, got [1]"),
    ({"params": {}, "value": "1"}, "value: expected a number or null, got '1'"),
    ({"params": {}, "value": True}, "value: expected a number or null, got True"),
    ({"params": {}, "value": [1.0]}, "value: expected a number or null, got [1.0]"),
    ({"params": {}, "status": "done"}, "status: expected one of ok, failed, pruned, running, got 'done'"),
    ({"params": {}, "status": 1}, "status: expected one of ok, failed, pruned, running, got 1"),
    ({"params": {}, "reason": 1}, "reason: expected a text, got 1"),
    ({"params": {}, "steps": 1}, "steps: expected a list of numbers, got 1"),
    ({"params": {}, "steps": ["1"]}, "steps: expected a list of numbers, got ['1']"),
    ({"params": {}, "steps": [1, True]}, "steps: expected a list of numbers, got [1, True]"),
    ({"params": {}, "raw": {"a": 1}}, "raw: expected a list, got {'a': 1}"),
    ({"params": {}, "number": "3"}, "number: expected an integer, got '3'"),
    ({"params": {}, "number": None}, "number: expected an integer, got None"),
]


@pytest.mark.parametrize(("record", "message"), WRONG, ids=str)
def test_a_record_that_is_none_of_a_trial_is_refused_by_name(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        Trial.from_record(record)
    assert str(raised.value) == message


def test_what_a_record_has_besides_is_let_be() -> None:
    trial = Trial.from_record({"params": {}, "value": 1, "steps": None, "reason": None, "raw": None, "host": "a"}, 3)
    assert shown(trial) == shown(Trial(3, {}, 1.0, "ok"))


# A journal


@pytest.mark.parametrize("lazy", [False, True])
def test_a_journal_has_the_trials_that_ended_and_those_that_run(journal: Path, lazy: bool) -> None:
    trials = load_trials(journal, lazy=lazy)
    assert list(trials) == ["0", "1", "2", "3", "4"]
    assert len(trials) == 5
    assert [shown(trials[str(i)]) for i in range(3)] == [shown(of(i)) for i in range(3)]
    assert shown(trials["3"]) == shown(Trial(3, {"x": 1}, math.nan, "failed", "too hot"))
    assert shown(trials["4"]) == shown(Trial(4, {"x": 2}, math.nan, "running"))
    assert trials.damaged == []


@pytest.mark.parametrize("lazy", [False, True])
def test_the_last_that_was_said_of_a_trial_counts(tmp_path: Path, lazy: bool) -> None:
    path = tmp_path / "study.jsonl"
    with Journal(path) as written:
        for i in range(4):
            written.start(f"{PREFIX}{i}", {"params": {"x": i}})
            written.end(f"{PREFIX}{i}", {"params": {"x": i}, "value": 1.0})
        written.end(f"{PREFIX}0", {"params": {"x": 0}, "value": 2.0})  # twice
        written.drop(f"{PREFIX}1")  # forgotten
        written.drop(f"{PREFIX}2")  # and begun anew
        written.start(f"{PREFIX}2", {"params": {"x": 2}})
        written.start(f"{PREFIX}3", {"params": {"x": 3}})  # its result is there
        written.start("other", None)
        written.drop("other")
    trials = load_trials(path, lazy=lazy)
    assert {key: (trial.status, repr(trial.value)) for key, trial in trials.items()} == {
        "0": ("ok", "2.0"),
        "3": ("ok", "1.0"),
        "2": ("running", "nan"),
    }
    with Journal(path) as opened:
        assert {f"{PREFIX}{key}" for key in trials} == opened.ended.keys() | opened.in_flight - {"other"}


@pytest.mark.parametrize("lazy", [False, True])
def test_a_journal_may_be_in_use(tmp_path: Path, lazy: bool) -> None:
    path = tmp_path / "study.jsonl"
    with Journal(path) as written:
        assert not load_trials(path, lazy=lazy), "an empty journal has none"
        for i in range(5):
            written.start(f"{PREFIX}{i}", {"params": of(i).params})
            assert load_trials(path, lazy=lazy)[str(i)].status == "running"
            written.end(f"{PREFIX}{i}", of(i).to_record(), math.inf)
            assert shown(load_trials(path, lazy=lazy)[str(i)]) == shown(of(i))
    before = path.read_bytes()
    with Journal(path) as written:
        assert len(written.ended) == 5
    assert path.read_bytes() == before


def test_a_journal_that_is_being_written_never_has_half_a_trial(tmp_path: Path) -> None:
    path, n = tmp_path / "study.jsonl", 300
    with Journal(path) as written:

        def write() -> None:
            for i in range(n):
                written.end(f"{PREFIX}{i}", of(i).to_record(), math.inf)

        thread = threading.Thread(target=write)
        thread.start()
        seen = [load_trials(path)]
        while thread.is_alive():
            seen.append(load_trials(path))
        thread.join()
    for trials in [*seen, load_trials(path)]:
        assert [shown(trial) for trial in trials.values()] == [shown(of(i)) for i in range(len(trials))]
    assert len(load_trials(path)) == n


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("gone", [1, 10, 60])
def test_a_torn_last_line_is_passed_over_and_told(journal: Path, gone: int, lazy: bool) -> None:
    before = journal.read_bytes()
    journal.write_bytes(before[:-gone])
    trials = load_trials(journal, lazy=lazy)
    assert list(trials) == ["0", "1", "2", "3"]
    assert trials.damaged == [f"{journal}: the last line is torn"]
    assert journal.read_bytes() == before[:-gone], "which is for who goes on with it to repair"


@pytest.mark.parametrize("lazy", [False, True])
def test_damaged_lines_are_passed_over_and_told_with_their_numbers(journal: Path, lazy: bool) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    end_of_1 = next(i for i, line in enumerate(lines) if b'{"end":"trial/1"' in line)
    lines[end_of_1] = lines[end_of_1].replace(b'"ok"', b'"no"').replace(b"0.1", b"0.9", 1)
    lines[1:1] = [b"garbage\n", b"\n", b"garbage\n"]
    lines.append(b"garbage\n")
    lines.append(lines[0])
    journal.write_bytes(b"".join(lines))
    trials = load_trials(journal, lazy=lazy)
    assert list(trials) == ["0", "2", "3", "1", "4"]
    assert trials["1"].status == "running", "as its end is not believed"
    places = [2, 3, 4, end_of_1 + 3 + 1, len(lines) - 1]
    assert trials.damaged == [f"{journal}: line {place} is damaged" for place in places]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_damaged_start_is_told_where_there_is_no_end(journal: Path, lazy: bool) -> None:
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'{"x":2}', b'{"x":3}').replace(b'{"crc"', b'{"cRc"', 1) + content[:50])
    trials = load_trials(journal, lazy=lazy)
    assert list(trials) == ["0", "1", "2", "3"]
    assert set(trials.damaged) == {
        f"{journal}: the last line is torn",
        f"{journal}: line 1 is damaged",
        f"{journal}: line {content.count(bytes([10]))} is damaged",
    }


@contextmanager
def file_name() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "study.jsonl"


@given(st.data(), st.integers(1, 255), st.booleans())
@settings(max_examples=80)
def test_a_flipped_byte_never_yields_a_wrong_trial(data: st.DataObject, flip: int, lazy: bool) -> None:
    with file_name() as path:
        with Journal(path) as written:
            for i in range(4):
                written.start(f"{PREFIX}{i}", {"params": of(i).params})
                written.end(f"{PREFIX}{i}", of(i).to_record(), math.inf)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= flip
        path.write_bytes(content)
        trials = load_trials(path, lazy=lazy)
        for key, trial in trials.items():
            if trial.status != "running":
                assert shown(trial) == shown(of(int(key)))
            assert trial.params == of(int(key)).params
        assert len([trial for trial in trials.values() if trial.status == "ok"]) >= 2
        assert trials.damaged or len(trials) == 4


def test_what_is_whole_but_no_trial_is_passed_over_and_told_at_once_or_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    with Journal(path) as written:
        written.end(f"{PREFIX}0", {"value": 1.0})
        written.end(f"{PREFIX}1", {"params": {}, "value": "high"})
        written.start(f"{PREFIX}2")
        written.end(f"{PREFIX}3", {"params": {}, "value": 1.0})
    trials = load_trials(path)
    assert list(trials) == ["3"]
    assert trials.damaged == [
        f"{path}: trial/0: params: expected an object, got none in {{'value': 1.0}}",
        f"{path}: trial/1: value: expected a number or null, got 'high'",
        f"{path}: trial/2: params: expected an object, got none in {{'status': 'running'}}",
    ]
    lazy = load_trials(path, lazy=True)
    assert list(lazy) == ["0", "1", "3", "2"]
    for key in "012":
        with pytest.raises(ValueError, match="expected"):
            lazy[key]


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b'{"a": 1}\n', b"\0" * 9, b"[]"])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.csv is not a journal"):
        load_trials(path)


def test_a_path_where_nothing_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: expected a journal or a folder of trials, got .*none \(No such file"):
        load_trials(tmp_path / "none")


# A folder


@pytest.mark.parametrize("n_threads", [None, 1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, LOOK - 1, LOOK, 3 * LOOK + 5, 300])
def test_a_folder_has_a_trial_a_file_whatever_the_threads(tmp_path: Path, n: int, n_threads: int | None) -> None:
    expected = {str(i): shown(of(i)) for i in range(n)}
    folder = folder_of(tmp_path / "files", n)
    assert told(folder, n_threads=n_threads) == expected
    assert list(load_trials(folder, n_threads=n_threads)) == list(expected), "in the order of numbers"
    assert told(folder, lazy=True) == expected


def test_more_threads_parse_where_reading_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers: set[int] = set()
    read = module._read

    def slowly(path: str) -> Any:
        workers.add(threading.get_ident())
        waiting.wait(0.001)
        return read(path)

    waiting = threading.Event()
    monkeypatch.setattr(module, "_read", slowly)
    monkeypatch.setenv("SURROGATE_JSON_CACHE", "0")
    assert len(load_trials(folder_of(tmp_path / "files", 4 * LOOK))) == 4 * LOOK
    assert len(workers) > 2


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2"], ids=repr)
def test_a_number_of_threads_that_is_none_is_refused(folder: Path, n_threads: Any) -> None:
    with pytest.raises(ValueError, match="n_threads: expected an integer >= 1, got "):
        load_trials(folder, n_threads=n_threads)


def test_names_of_files_are_keys_and_other_files_are_let_be(tmp_path: Path) -> None:
    files = ["trial_007.json", "trial_10.json", "trial_9.json", "trial_a b.é.json"]
    others = ["trial_.json", "trial_1.json.tmp", "trial_2.txt", "my_trial_3.json", "notes.json"]
    for name in files + others:
        (tmp_path / name).write_text('{"params": {}, "value": 1}')
    trials = load_trials(tmp_path)
    assert list(trials) == ["9", "10", "007", "a b.é"]
    assert [trial.number for trial in trials.values()] == [9, 10, 7, 0]
    assert not trials.damaged


DAMAGED: list[tuple[bytes, str]] = [
    (b"", "unexpected end|empty document|Input is a zero-length"),
    (b'{"params": {"x": 1}, "val', "line 1 column"),
    (b"\xff\xfe", "UTF-8"),
    (b'{"params": {}, "value": NaN}', "line 1 column"),
    (b'{"params": {}, "value": 1e999}', "infinity"),
    (b'{"params": {}} {}', "line 1 column"),
    (b"[" * 100_000, "limit"),
    *((json.dumps(record).encode(), message.replace("[", r"\[")) for record, message in WRONG),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED, ids=lambda value: str(value)[:40])
def test_a_damaged_file_is_passed_over_and_told_at_once_or_when_asked_for(
    folder: Path, content: bytes, message: str
) -> None:
    path = folder / "trial_5.json"
    path.write_bytes(content)
    for n_threads in (1, 2):
        trials = load_trials(folder, n_threads=n_threads)
        assert list(trials) == [str(i) for i in range(12) if i != 5]
        assert len(trials.damaged) == 1
        assert trials.damaged[0].startswith(f"{path}: ")
        assert "\n" not in trials.damaged[0]
    lazy = load_trials(folder, lazy=True)
    assert "5" in lazy
    assert lazy.damaged == []
    with pytest.raises(ValueError, match=message) as raised:
        lazy["5"]
    assert str(path) in str(raised.value)
    assert shown(lazy["6"]) == shown(of(6))


@pytest.mark.parametrize("cached", ["0", "1"])
def test_what_cannot_be_read_is_passed_over_and_told(
    folder: Path, cached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_JSON_CACHE", cached)
    (folder / "trial_20.json").mkdir()
    (folder / "trial_21.json").symlink_to(folder / "nowhere")
    trials = load_trials(folder)
    assert list(trials) == [str(i) for i in range(12)]
    assert len(trials.damaged) == 2
    assert "Is a directory" in trials.damaged[0]
    assert "trial_20.json" in trials.damaged[0]
    assert "No such file" in trials.damaged[1]
    assert "trial_21.json" in trials.damaged[1]


def test_damage_is_told_in_the_order_of_files_whatever_the_threads(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "files", 200)
    bad = [3, 40, 41, 99, 150, 199]
    for i in bad:
        (folder / f"trial_{i}.json").write_text("{")
    for n_threads in (1, 2, 5):
        lines = load_trials(folder, n_threads=n_threads).damaged
        assert [line.split(": ")[0] for line in lines] == [str(folder / f"trial_{i}.json") for i in bad]


def test_a_file_that_is_deeply_nested_is_a_trial_too(folder: Path) -> None:
    (folder / "trial_5.json").write_text('{"params": ' + '{"a": ' * 1000 + "1" + "}" * 1000 + "}")
    for lazy in (False, True):
        assert load_trials(folder, lazy=lazy)["5"].status == "failed"


def test_a_large_file_is_read_whole(folder: Path) -> None:
    for size in (module._PIECE - 1, module._PIECE, 3 * module._PIECE):
        record = {"params": {"x": "y" * size}, "value": 1.0}
        (folder / "trial_5.json").write_text(json.dumps(record))
        assert load_trials(folder)["5"].params == record["params"]


def test_lazily_nothing_is_parsed_before_it_is_asked_for(
    folder: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_JSON_CACHE", "0")
    parsed: list[bytes] = []
    loads = orjson.loads
    monkeypatch.setattr(module.orjson, "loads", lambda content: (parsed.append(content), loads(content))[1])
    for path in (folder, journal):
        trials = load_trials(path, lazy=True)
        assert len(list(trials)) == len(trials)
        assert "2" in trials
        assert "none" not in trials
        assert not parsed
        assert shown(trials["2"]) == shown(of(2))
        assert len(parsed) == 1
        parsed.clear()
        with pytest.raises(KeyError):
            trials["none"]
        assert trials.get("none") is None


def test_a_file_that_is_gone_when_it_is_asked_for_is_told(folder: Path) -> None:
    trials = load_trials(folder, lazy=True)
    (folder / "trial_5.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"trial_5\.json"):
        trials["5"]


def test_a_relative_path_is_that_of_when_it_was_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    trials = load_trials("files", lazy=True)
    monkeypatch.chdir("/")
    assert shown(trials["5"]) == shown(of(5))


@pytest.mark.parametrize("lazy", [False, True])
def test_collection_of_garbage_is_left_as_it_was(folder: Path, lazy: bool) -> None:
    assert gc.isenabled()
    load_trials(folder, lazy=lazy)
    assert gc.isenabled()
    gc.disable()
    try:
        load_trials(folder, lazy=lazy)
        assert not gc.isenabled()
    finally:
        gc.enable()


# What is remembered of files


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened, one after the other."""
    names: list[str] = []
    whole = os.open

    def counted(path: Any, *arguments: Any, **options: Any) -> int:
        names.append(Path(path).name)
        return whole(path, *arguments, **options)

    monkeypatch.setattr(os, "open", counted)
    return names


def test_a_file_that_stays_as_it_is_is_parsed_once(folder: Path, opened: list[str]) -> None:
    first = told(folder)
    assert len(opened) == 12
    assert told(folder) == told(folder, lazy=True) == told(folder, n_threads=2) == first
    assert len(opened) == 12


@pytest.mark.parametrize("lazy", [False, True])
def test_a_file_that_has_changed_is_parsed_anew(folder: Path, lazy: bool) -> None:
    load_trials(folder)
    path = folder / "trial_5.json"
    stat, content = path.stat(), path.read_text()
    path.write_text(content.replace('"b"', '"c"'))  # of the same size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load_trials(folder, lazy=lazy)["5"].params["inner"] == {"a": "c"}
    path.write_text(content.replace('"b"', '"longer"'))  # of the same time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_trials(folder, lazy=lazy)["5"].params["inner"] == {"a": "longer"}


def test_a_lazy_trial_is_that_of_when_it_is_asked_for(folder: Path) -> None:
    trials = load_trials(folder, lazy=True)
    assert trials["5"].params["inner"] == {"a": "b"}
    (folder / "trial_5.json").write_text('{"params": {"new": 1}, "value": 1}')
    assert trials["5"].params == {"new": 1}


def test_who_changes_what_was_loaded_changes_nothing_that_is_remembered(folder: Path) -> None:
    for lazy in (False, True, False):
        params: Any = load_trials(folder, lazy=lazy)["5"].params
        assert params == of(5).params
        params["inner"].clear()
        params["layers"].append(1)
        params.pop("x")


def test_files_that_were_damaged_are_not_remembered(folder: Path, opened: list[str]) -> None:
    (folder / "trial_5.json").write_text("{")
    for _ in range(2):
        assert len(load_trials(folder).damaged) == 1
    assert opened.count("trial_5.json") == 2
    assert opened.count("trial_6.json") == 1


@pytest.mark.parametrize("switch", ["0", "false", "OFF", "no"])
def test_the_cache_may_be_switched_off(
    folder: Path, opened: list[str], switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_JSON_CACHE", switch)
    assert told(folder) == told(folder) == told(folder, lazy=True)
    assert len(opened) == 36


@pytest.mark.parametrize("lazy", [False, True])
def test_of_size_0_it_remembers_nothing(
    folder: Path, opened: list[str], lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_JSON_CACHE_SIZE", "0")
    assert told(folder, lazy=lazy) == told(folder, lazy=lazy)
    assert len(opened) == 24


@pytest.mark.parametrize("switch", ["1", "true", "On", "yes"])
def test_the_last_files_are_kept_as_many_as_its_size(
    folder: Path, opened: list[str], switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURROGATE_JSON_CACHE", switch)
    monkeypatch.setenv("SURROGATE_JSON_CACHE_SIZE", "3")
    trials = load_trials(folder, lazy=True)
    for key in "1231145":  # of 1, 2 and 3, two is the one not used for longest, then three
        trials[key]
    assert [name[6] for name in opened] == ["1", "2", "3", "4", "5"]
    for key in "1453":
        trials[key]
    assert [name[6] for name in opened[5:]] == ["3"]
    assert len(module._files) == 3


def test_more_files_than_there_is_room_for_leave_what_is_remembered(
    folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other they would push each other out before any is asked for again."""
    monkeypatch.setenv("SURROGATE_JSON_CACHE_SIZE", "11")
    assert load_trials(folder, lazy=True)["3"].number == 3
    assert told(folder) == told(folder)
    assert len(opened) == 25
    assert load_trials(folder, lazy=True)["3"].number == 3
    assert len(opened) == 25


def test_256_files_are_remembered_by_default(tmp_path: Path, opened: list[str]) -> None:
    folder = folder_of(tmp_path / "files", 256)
    opened.clear()
    assert told(folder) == told(folder)
    assert len(opened) == 256


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SURROGATE_JSON_CACHE", "maybe", "1 or 0, got 'maybe'"),
        ("SURROGATE_JSON_CACHE", "", "1 or 0, got ''"),
        ("SURROGATE_JSON_CACHE_SIZE", "many", "an integer >= 0, got 'many'"),
        ("SURROGATE_JSON_CACHE_SIZE", "-1", "an integer >= 0, got '-1'"),
        ("SURROGATE_JSON_CACHE_SIZE", "1.5", "an integer >= 0, got '1.5'"),
        ("SURROGATE_JSON_CACHE_SIZE", "", "an integer >= 0, got ''"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_variable_that_is_not_as_it_should_be_is_named(
    folder: Path, name: str, value: str, expected: str, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name}: expected {expected}$"):
        load_trials(folder, lazy=lazy)


def test_threads_may_share_what_is_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, wrong = told(folder), []
    monkeypatch.setenv("SURROGATE_JSON_CACHE_SIZE", "1")

    def work(size: int) -> None:
        for i in range(20):
            os.environ["SURROGATE_JSON_CACHE_SIZE"] = str(size + i % 3)
            if told(folder, lazy=True) != expected:
                wrong.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (0, 1, 5, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
