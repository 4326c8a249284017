"""The stages' cache: what is put in comes out; a file that was spoilt or planted is never believed, and never run."""

import base64
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow, task
from prefect.results import ResultRecord, ResultRecordMetadata, ResultStore
from prefect.serializers import CompressedPickleSerializer, PickleSerializer, Serializer
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tasks.caching import (
    CacheMiss,
    FilesSerializer,
    ResultStorage,
    StageFiles,
    _OneCallStorage,
    _seal,
    call_cached,
    stage_options,
)
from tasks.records import MAX_BYTES, cache_stats, clear_cache
from tasks.workspace import COMPILED, JOURNALS, RESULTS

KEY = "0123456789abcdef" * 4
NAME = f"fit-{KEY}"
OTHER_NAME = f"fit-{KEY[::-1]}"
FILES: StageFiles = {"model/spec.json": b'{"kind": "gaussian_process"}', "model/arrays.safetensors": bytes(range(256))}


@pytest.fixture
def storage(tmp_path: Path) -> ResultStorage:
    return ResultStorage(basepath=str(tmp_path / RESULTS))


def put(storage: ResultStorage, name: str, files: StageFiles = FILES) -> Path:
    record = ResultRecord(result=files, metadata=ResultRecordMetadata(serializer=FilesSerializer(), storage_key=name))
    return Path(storage.write_path(name, record.serialize()))


def get(storage: ResultStorage, name: str) -> StageFiles:
    return ResultRecord.deserialize(storage.read_path(name)).result


# --- the serializer

names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='/\\:"'), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(paths, st.binary()))
def test_files_survive_the_round_trip(files: StageFiles) -> None:
    blob = FilesSerializer().dumps(files)
    assert FilesSerializer().loads(blob) == files
    assert FilesSerializer().dumps(dict(reversed(files.items()))) == blob


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        b"",
        {"/etc/passwd": b""},
        {"../up": b""},
        {"a/../../up": b""},
        {"a//b": b""},
        {"./a": b""},
        {".": b""},
        {"": b""},
        {"a/": b""},
        {"a\\b": b""},
        {"c:a": b""},
        {"a\0": b""},
        {"a\n": b""},
        {"\ud800": b""},
        {1: b""},
        {b"a": b""},
        {"a": "text"},
        {"a": bytearray()},
        {"a": None},
        {"a": {"b": b""}},
    ],
)
def test_anything_but_files_is_refused(files: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="stage files: expected"):
        FilesSerializer().dumps(files)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"null",
        b"[]",
        b'{"a":1}',
        b'{"a":null}',
        b'{"a":"!"}',
        b'{"../a":""}',
        b'{"a": ""}',
        b'{"b":"","a":""}',
        b'{"a":"QQ==","a":"Qg=="}',
        b'{"a":"QR=="}',
        b'{"a":{"__class__":"x"}}',
        pickle.dumps({"a": b""}),
        base64.b64encode(pickle.dumps({"a": b""})),
    ],
)
def test_anything_but_the_canonical_encoding_is_refused(blob: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        FilesSerializer().loads(blob)


@given(st.binary())
def test_random_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        FilesSerializer().loads(blob)


# --- the storage


def test_a_record_comes_back_and_its_file_names_no_serializer(storage: ResultStorage) -> None:
    file = put(storage, NAME)
    assert get(storage, NAME) == FILES
    assert file.name == NAME
    assert b"serializer" not in file.read_bytes()
    assert ResultStore(result_storage=storage, serializer=FilesSerializer()).read(NAME).result == FILES


def test_an_absent_record_is_a_miss_without_a_warning(storage: ResultStorage, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CacheMiss):
        storage.read_path(NAME)
    assert not caplog.records


@pytest.mark.parametrize("serializer", [PickleSerializer(), CompressedPickleSerializer()])
def test_a_record_of_another_serializer_is_not_written(storage: ResultStorage, serializer: Serializer) -> None:
    record = ResultRecord(result=FILES, metadata=ResultRecordMetadata(serializer=serializer, storage_key=NAME))
    with pytest.raises(ValueError, match="expected the serializer 'surrogate-files'"):
        storage.write_path(NAME, record.serialize())


@pytest.mark.parametrize("name", ["../fit-" + KEY, "/etc/passwd", "a/b", "fit-xyz", "..", ""])
def test_only_flat_names_of_a_stage_and_a_key_are_taken(storage: ResultStorage, name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        storage.read_path(name)


def test_what_prefect_found_cannot_be_lost_before_it_reads(tmp_path: Path) -> None:
    storage = _OneCallStorage(basepath=str(tmp_path))
    file = put(storage, NAME)
    store = ResultStore(result_storage=storage, serializer=FilesSerializer())
    assert store.exists(NAME)
    file.unlink()
    assert store.read(NAME).result == FILES


def test_a_disk_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    put(ResultStorage(basepath=str(tmp_path / "cache")), NAME)
    assert [record.name for record in caplog.records] == ["surrogate.cache"]


# --- planted and damaged files


class Bomb:
    """What runs code when it is unpickled: it makes the file `exploded`."""

    def __init__(self, folder: Path) -> None:
        self.marker = folder / "exploded"

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def bomb_record(folder: Path, serializer: Serializer) -> bytes:
    metadata = ResultRecordMetadata(serializer=serializer, storage_key=NAME)
    return ResultRecord(result=Bomb(folder), metadata=metadata).serialize()


def renamed_serializer(folder: Path) -> bytes:
    record = orjson.loads(bomb_record(folder, PickleSerializer()))
    record["metadata"]["serializer"] = {"type": "somebody-elses", "picklelib": "cloudpickle"}
    return orjson.dumps(record)


def doubled_metadata(folder: Path) -> bytes:
    # Two JSON readers may each believe another of two equal keys.
    bomb = bomb_record(folder, PickleSerializer()).decode()
    ours = '"metadata":{"serializer":{"type":"surrogate-files"}}'
    return f"{{{ours},{bomb[1:-1]},{ours}}}".encode()


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


PLANTED: dict[str, Callable[[Path, bytes], bytes]] = {
    "a pickle": lambda folder, good: pickle.dumps(Bomb(folder)),
    "a record naming pickle": lambda folder, good: bomb_record(folder, PickleSerializer()),
    "a record naming compressed pickle": lambda folder, good: bomb_record(folder, CompressedPickleSerializer()),
    "a record naming an unknown serializer": lambda folder, good: renamed_serializer(folder),
    "a record naming two serializers": lambda folder, good: doubled_metadata(folder),
    "a sealed record naming pickle": lambda folder, good: _seal(NAME, bomb_record(folder, PickleSerializer())),
    "a sealed record naming two serializers": lambda folder, good: _seal(NAME, doubled_metadata(folder)),
    "sealed paths that lead out": lambda folder, good: _seal(NAME, b'{"../../exploded":""}'),
    "a record of another key": lambda folder, good: _seal(OTHER_NAME, FilesSerializer().dumps({"other": b""})),
}
DAMAGED: dict[str, Callable[[Path, bytes], bytes]] = {
    "empty": lambda folder, good: b"",
    "cut in the checksum": lambda folder, good: good[:30],
    "cut after the checksum": lambda folder, good: good[:65],
    "cut in the name": lambda folder, good: good[:80],
    "cut in the body": lambda folder, good: good[:-40],
    "one byte short": lambda folder, good: good[:-1],
    "one byte long": lambda folder, good: good + b"\n",
    "bit flipped in the checksum": lambda folder, good: flip(good, 10),
    "bit flipped in the name": lambda folder, good: flip(good, 70),
    "bit flipped in the body": lambda folder, good: flip(good, len(good) - 30),
    "line ends changed": lambda folder, good: good.replace(b"\n", b"\r\n"),
    "garbage": lambda folder, good: bytes(range(256)) * 8,
    "text": lambda folder, good: "kein Zwischenergebnis: ü".encode(),
}
SPOILT = PLANTED | DAMAGED


def plant_directory(file: Path) -> None:
    file.mkdir()
    (file / "mine").write_text("keep")


PUT_IN_PLACE: dict[str, Callable[[Path], None]] = {
    "a directory": plant_directory,
    "a link": lambda file: file.symlink_to(file.with_name(OTHER_NAME)),
    "a dangling link": lambda file: file.symlink_to("/nonexistent/place"),
    "a pipe": lambda file: os.mkfifo(file),
}


def spoil(case: str, folder: Path, file: Path, good: bytes) -> None:
    if case in SPOILT:
        file.write_bytes(SPOILT[case](folder, good))
    else:
        file.unlink()
        PUT_IN_PLACE[case](file)


def test_the_planted_records_are_dangerous_to_prefect_itself(tmp_path: Path) -> None:
    ResultRecord.deserialize(bomb_record(tmp_path, PickleSerializer()))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("case", [*SPOILT, *PUT_IN_PLACE])
def test_a_spoilt_file_is_a_miss_and_one_warning(
    case: str, tmp_path: Path, storage: ResultStorage, caplog: pytest.LogCaptureFixture
) -> None:
    put(storage, OTHER_NAME)
    file = put(storage, NAME)
    spoil(case, tmp_path, file, file.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert not ResultStore(result_storage=storage, serializer=FilesSerializer()).exists(NAME)
    assert [(record.name, str(file) in record.getMessage()) for record in caplog.records] == [("surrogate.cache", True)]
    assert not os.path.lexists(file)
    assert not (tmp_path / "exploded").exists()
    put(storage, NAME)
    assert get(storage, NAME) == get(storage, OTHER_NAME) == FILES


@pytest.mark.parametrize("files", [FILES, {"data/out": b"", "surrogate_core/planted.py": b"boom"}, {}])
def test_a_sealed_record_of_other_files_than_the_stages_own_is_a_miss(
    files: StageFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = ResultStorage(basepath=str(tmp_path), outs=("data/out", "data/folder"))
    own = {"data/out": b"1", "data/folder/a": b"2"}
    assert get(storage, put(storage, NAME, own).name) == own
    file = put(storage, NAME, files)
    with pytest.raises(CacheMiss):
        storage.read_path(NAME)
    assert not file.exists()
    assert "expected data/out, data/folder and nothing else" in caplog.text


def test_a_directory_in_the_place_of_a_record_is_moved_aside_whole(storage: ResultStorage) -> None:
    file = put(storage, NAME)
    file.unlink()
    plant_directory(file)
    with pytest.raises(CacheMiss):
        storage.read_path(NAME)
    assert [aside.read_text() for aside in file.parent.glob("*/mine")] == ["keep"]


# --- its bounds


def keys(count: int) -> list[str]:
    return [f"fit-{number:016x}" for number in range(count)]


def test_the_least_recently_used_records_are_removed_above_the_limit(tmp_path: Path) -> None:
    storage = ResultStorage(basepath=str(tmp_path))
    a, b, c, d, e = keys(5)
    size = put(storage, a).stat().st_size
    storage = ResultStorage(basepath=str(tmp_path), max_bytes=3 * size)
    for age, name in enumerate([c, b, a]):
        put(storage, name)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))  # c was used first, then b, then a
    get(storage, c)
    put(storage, d)
    assert {file.name for file in tmp_path.iterdir()} == {a, c, d}
    put(storage, e)
    assert {file.name for file in tmp_path.iterdir()} == {c, d, e}


def test_the_record_just_written_stays_even_if_it_alone_is_above_the_limit(tmp_path: Path) -> None:
    storage = ResultStorage(basepath=str(tmp_path), max_bytes=10)
    for name in keys(3):
        put(storage, name)
        assert [file.name for file in tmp_path.iterdir()] == [name]


def test_stats_count_and_clear_removes_records_only(tmp_path: Path) -> None:
    assert clear_cache(tmp_path / "absent") == {"results": 0, "journals": 0}
    nothing = cache_stats(tmp_path / "absent")
    assert (nothing["entries"], nothing["bytes"], nothing["limit"], nothing["stages"]) == (0, 0, MAX_BYTES, {})
    results = tmp_path / RESULTS
    storage = ResultStorage(basepath=str(results))
    files = [put(storage, name) for name in (*keys(2), f"tune-{KEY}")]
    (results / "notes.txt").write_text("mine")
    (results / ".writing-killed").write_text("half a rec")
    for path, content in ((tmp_path / COMPILED / "cpu" / "f-cache", "code"), (tmp_path / JOURNALS / "a.jsonl", "")):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    size = sum(file.stat().st_size for file in files)
    told = cache_stats(tmp_path, 5)
    assert (told["entries"], told["bytes"], told["limit"]) == (3, size, 5)
    assert (told["stages"], told["compiled_bytes"], told["journals"]) == ({"fit": 2, "tune": 1}, 4, 1)
    assert clear_cache(tmp_path) == {"results": 3, "journals": 0}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.jsonl", "notes.txt"]
    assert clear_cache(tmp_path, checkpoints=True) == {"results": 0, "journals": 1}


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".writing-old", tmp_path / ".writing-new"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    put(ResultStorage(basepath=str(tmp_path)), NAME)
    assert (old.exists(), new.exists()) == (False, True)


WRITER = """
import sys
from tests.test_caching import *
storage = ResultStorage(basepath=sys.argv[1], max_bytes=3000)
for turn in range(150):
    name = keys(5)[turn % 5]
    put(storage, name, {"turn": name.encode() * (turn + 1)})
    try:
        files = get(storage, keys(5)[(turn + 2) % 5])
        assert set(files) == {"turn"}
    except CacheMiss:
        pass
"""


@pytest.mark.slow
def test_two_processes_writing_at_once_do_no_harm(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", WRITER, str(tmp_path)]
    root = Path(__file__).parents[1]
    writers = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    assert [writer.communicate()[1].decode() for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    storage = ResultStorage(basepath=str(tmp_path))
    left = [file.name for file in tmp_path.iterdir()]
    assert left
    assert set(left) <= set(keys(5))
    for name in left:
        assert name.encode() in get(storage, name)["turn"]


# --- through Prefect

runs: list[int] = []


@task(**stage_options("fit"))
def fit(key: str, number: int) -> StageFiles:
    runs.append(number)
    if number < 0:
        raise ArithmeticError(f"a negative number: {number}")
    return FILES


@pytest.mark.parametrize("stage", ["", "Fit", "fit-it", "../fit", "fit it"])
def test_the_name_of_a_stage_is_checked(stage: str) -> None:
    with pytest.raises(ValueError, match="stage: expected lower-case"):
        stage_options(stage)


@pytest.mark.parametrize("key", ["", "abc", "../" * 8, "g" * 16, KEY.upper()])
def test_a_key_is_checked_before_the_task_is_called(storage: ResultStorage, key: str) -> None:
    with pytest.raises(ValueError, match="key: expected 16 to 128"):
        call_cached(fit, storage=storage, key=key, number=1)


def run_in_flow(body: Callable[[], None]) -> None:
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        flow(name="test", validate_parameters=False)(body)()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_flow_computes_once_for_a_key(tmp_path: Path, storage: ResultStorage) -> None:
    def body() -> None:
        other = KEY[::-1]
        runs.clear()
        assert call_cached(fit, storage=storage, key=KEY, number=1) == (FILES, False)
        assert call_cached(fit, storage=storage, key=KEY, number=1) == (FILES, True)
        assert call_cached(fit, storage=storage, key=other, number=2) == (FILES, False)
        assert call_cached(fit, storage=storage, key=KEY, number=3) == (FILES, True)
        assert runs == [1, 2]
        assert cache_stats(tmp_path)["stages"] == {"fit": 2}
        clear_cache(tmp_path)
        assert call_cached(fit, storage=storage, key=KEY, number=4) == (FILES, False)
        assert runs == [1, 2, 4]

    run_in_flow(body)
    run_in_flow(lambda: runs.append(call_cached(fit, storage=storage, key=KEY, number=5)[1]))
    assert runs == [1, 2, 4, True]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_result_whose_sources_were_edited_meanwhile_is_not_kept(
    storage: ResultStorage, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        runs.clear()
        assert call_cached(fit, storage=storage, key=KEY, is_current=lambda: False, number=1) == (FILES, False)
        assert call_cached(fit, storage=storage, key=KEY, number=1) == (FILES, False)
        assert call_cached(fit, storage=storage, key=KEY, number=1) == (FILES, True)

    run_in_flow(body)
    assert "was edited while it was computed" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_failure_is_raised_as_it_was_and_never_cached(
    storage: ResultStorage, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        runs.clear()
        for _ in range(2):
            with pytest.raises(ArithmeticError, match="a negative number: -1"):
                call_cached(fit, storage=storage, key=KEY, number=-1)
        assert runs == [-1, -1]

    logger = logging.getLogger("prefect.task_runs")
    caplog.set_level(logging.ERROR, logger.name)  # `only_errors` of a command may have silenced it
    logger.addHandler(caplog.handler)
    run_in_flow(body)
    logger.removeHandler(caplog.handler)
    assert "Task run failed" in caplog.text
    assert "Failed to write result" not in caplog.text
    assert list(Path(str(storage.basepath)).glob("*")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_spoilt_file_runs_the_stage_again_and_is_repaired(tmp_path: Path, storage: ResultStorage) -> None:
    def body() -> None:
        put(storage, OTHER_NAME)
        call_cached(fit, storage=storage, key=KEY, number=0)
        file = tmp_path / RESULTS / NAME
        good = file.read_bytes()
        for case in [*SPOILT, *PUT_IN_PLACE]:
            spoil(case, tmp_path, file, good)
            runs.clear()
            assert call_cached(fit, storage=storage, key=KEY, number=7) == (FILES, False), case
            assert runs == [7], case
            assert file.read_bytes() == good, case
        assert call_cached(fit, storage=storage, key=KEY, number=8) == (FILES, True)

    run_in_flow(body)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_what_is_no_stage_files_is_an_error(storage: ResultStorage) -> None:
    @task(**stage_options("bad"))
    def bad(key: str) -> StageFiles:
        return {"../up": b""}

    def body() -> None:
        with pytest.raises(ValueError, match=r"without '\.\.'"):
            call_cached(bad, storage=storage, key=KEY)

    run_in_flow(body)
    assert list(Path(str(storage.basepath)).glob("*")) == []
