"""Tuning's parts and its whole engine against the plain way of each, and against Optuna on SQLite.

    python -m benchmarks.tuning [names] [adding] [looking_up] [loading] [merging] [engine] [resuming] [--quick]

A plain way is what a colleague would write at first, at documented defaults, on the same data and in the same run; they
take turns, and of each the least time counts. All of it takes about five minutes, `--quick` half a minute. Finished
parts are kept, so a run that was stopped goes on. What is shown without a verdict is not required.

What survives, where that is the point:

- SQLite with a connection and a commit each, at its defaults (journal_mode=DELETE, synchronous=FULL): all that was
  committed is on the disk. Optuna's SQLite storage does the same, several times a trial.
- `DuplicateGuard`, SQLite in WAL with synchronous=NORMAL: a killed process loses nothing; a power cut may lose the last
  adds, and leaves the file whole. A line shows what one connection of this kind costs without the guard.
- `Journal`: a killed process loses no trial that has ended. What ends within half a second is brought to the disk
  together: a power cut may lose that, and it is tried again when the study goes on.

Single adds are those of a guard that is open, as it is while a study runs; with opening and closing, which writes the
log back, is another line. Of Optuna `study.optimize` alone is timed, once there are tables; of the engine all is.
Going on is timed in a new process each time, without imports: from opening the file to all trials of Optuna's, which is
what is required, and to the first call of the objective.

Lookups are those of a guard that has just been opened, and then the same again, when the pages of the file are at hand;
half of them are of what is not there. They share a snapshot of the file until any process changes the set. With a
change before each, one takes 6 us, most of it for the locks by which SQLite begins to read, and is about nine times as
fast as the plain way.
"""

import copy
import hashlib
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import orjson

from benchmarks.comparing import Line, Work, compared, folder, least
from benchmarks.rows import ROOT, journal, judged, options, row, sources
from benchmarks.studies import engine, quiet, resuming, run
from surrogate_core.journal import Journal
from surrogate_core.tuning.guard import DuplicateGuard
from surrogate_core.tuning.identity import param_signature, trial_key
from surrogate_core.tuning.merge import deep_merge
from surrogate_core.tuning.trials import load_trials
from tasks.machine import machine

# Names of trials


_lock, _known = threading.Lock(), dict[str, str]()


def plain_key(params: Mapping[str, Any]) -> str:
    text = json.dumps(params, sort_keys=True, separators=(",", ":"))
    with _lock:
        if text not in _known:
            _known[text] = hashlib.sha256(text.encode()).hexdigest()
        return _known[text]


def plain_signature(params: Mapping[str, Any], digits: int = 10) -> str:
    text = json.dumps(rounded(params, digits), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def designs(n: int, seed: int, batch_size: int | None = 32) -> list[dict[str, Any]]:
    """Small nested designs, such as a search of surrogates proposes, none twice."""
    rng = np.random.default_rng(seed)
    return [
        {
            "kind": "neural_network",
            "hidden_layers": rng.integers(8, 512, 3).tolist(),
            "activation": ("silu", "tanh")[i % 2],
            "optimizer": {"learning_rate": rng.uniform(1e-4, 0.1), "n_epochs": 100 * (i % 7), "nesterov": True},
            "regularization": {"weight_decay": rng.uniform(), "dropout": rng.uniform(0, 0.5)},
            "batch_size": batch_size,
        }
        for i in range(n)
    ]


def names(quick: bool) -> Iterator[Line]:
    n, repeats, way = 1000, 5 if quick else 20, "json + sha256 + locked dict"
    by: dict[str, Work] = {"plain": _of_each(plain_key), "ours": _of_each(trial_key)}
    took = least(repeats, lambda i: designs(n, i), **by)
    yield compared(f"trial_key of {n:,} nested dicts never seen", way, 5, took["plain"], took["ours"], n)
    took = least(repeats, lambda i: designs(n, i, batch_size=None), **by)
    yield compared("the same with one value None", way, None, took["plain"], took["ours"], n)
    way, by = "rounding + json + sha256", {"plain": _of_each(plain_signature), "ours": _of_each(param_signature)}
    by["ours"](designs(6000, 1000))  # so that what is remembered is full, and trimmed now and then
    took = least(repeats, lambda i: designs(n, 2000 + i), **by)
    yield compared(f"param_signature of {n:,}, cold", way, 2, took["plain"], took["ours"], n)
    took = least(repeats, lambda i: designs(n, 2000 + i, batch_size=None), **by)
    yield compared("the same with one value None", way, None, took["plain"], took["ours"], n)
    again = designs(n, 999)
    by["ours"](again)
    took = least(repeats, lambda _: again, **by)
    yield compared(f"param_signature of {n:,}, warm", way, 5, took["plain"], took["ours"], n)


def _of_each(function: Callable[[Any], Any]) -> Work:
    def work(items: Iterable[Any]) -> None:
        for item in items:
            function(item)

    return work


# The guard


ADD, SEEN = "INSERT OR IGNORE INTO tried VALUES (?)", "SELECT 1 FROM tried WHERE signature = ?"


def plain_store(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE tried (signature TEXT PRIMARY KEY)")


def plain_add(path: Path, signature: str) -> None:
    with closing(sqlite3.connect(path)) as store, store:
        store.execute(ADD, (signature,))


def plain_seen(path: Path, signature: str) -> bool:
    with closing(sqlite3.connect(path)) as store:
        return store.execute(SEEN, (signature,)).fetchone() is not None


def plain_batch(path: Path, signatures: Sequence[str]) -> None:
    with closing(sqlite3.connect(path)) as store, store:
        for signature in signatures:
            store.execute(ADD, (signature,))


def one_connection(path: Path, signatures: Sequence[str]) -> None:
    """What single adds cost who knows that connections and syncs do: as durable as the guard's."""
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=NORMAL")
        for signature in signatures:
            with store:
                store.execute(ADD, (signature,))


def made_up(n: int, seed: int) -> list[str]:
    """Signatures."""
    drawn = np.random.default_rng(seed).bytes(16 * n)
    return [drawn[i : i + 16].hex() for i in range(0, 16 * n, 16)]


def adding(quick: bool) -> Iterator[Line]:
    n, many, repeats = 1000, 100_000, 2 if quick else 7
    few, all_of_them = made_up(n, 0), made_up(many, 1)
    with folder() as within:

        def new(_: int) -> tuple[Path, DuplicateGuard]:
            place = Path(within, f"{time.monotonic_ns()}")
            place.mkdir()
            for name in ("plain", "one"):
                plain_store(place / name)
            DuplicateGuard(place / "another").close()
            return place, DuplicateGuard(place / "guard")

        def opened_and_closed(place: Path) -> None:
            with DuplicateGuard(place / "another") as guard:
                _of_each(guard.add)(few)

        single = least(
            repeats,
            new,
            plain=lambda new: _of_each(partial(plain_add, new[0] / "plain"))(few),
            one=lambda new: one_connection(new[0] / "one", few),
            ours=lambda new: _of_each(new[1].add)(few),
            opened=lambda new: opened_and_closed(new[0]),
        )
        batch = least(
            repeats,
            new,
            plain=lambda new: plain_batch(new[0] / "plain", all_of_them),
            ours=lambda new: new[1].add_batch(all_of_them),
        )
    way = "new connection, commit each"
    yield compared(f"guard: {n:,} single adds", way, 50, single["plain"], single["ours"], n)
    yield compared("the same with opening and closing", way, None, single["plain"], single["opened"], n)
    way = "one connection, WAL, NORMAL"
    yield compared("the same with opening and closing", way, None, single["one"], single["opened"], n)
    way = "execute in a loop, one commit"
    yield compared(f"guard: batch of {many:,} adds", way, 2, batch["plain"], batch["ours"], many)
    each, of_batch = single["plain"] / n, batch["ours"] / many
    yield compared("the same, an add", "single adds by the plain way", 300, each, of_batch)


def looking_up(quick: bool) -> Iterator[Line]:
    n, many, repeats = 1000, 100_000, 3 if quick else 15
    there, others = made_up(many, 1), made_up(n, 0)
    asked = [*there[: n // 2], *others[n // 2 :]]
    with folder() as within:
        theirs, ours = Path(within, "plain"), Path(within, "guard")
        plain_store(theirs)
        plain_batch(theirs, there)
        with DuplicateGuard(ours) as guard:
            guard.add_batch(there)
        took = least(
            repeats,
            lambda _: DuplicateGuard(ours),
            plain=lambda _: _of_each(partial(plain_seen, theirs))(asked),
            first=lambda guard: _of_each(guard.seen)(asked),
            again=lambda guard: _of_each(guard.seen)(asked),
            at_once=lambda guard: guard.seen_batch(asked),
        )
    what, way = f"guard: {n:,} lookups, half there,", "new connection each"
    yield compared(f"{what} twice", way, 20, 2 * took["plain"], took["first"] + took["again"], 2 * n)
    yield compared(f"{what} first", way, None, took["plain"], took["first"], n)
    yield compared(f"{what} again", way, None, took["plain"], took["again"], n)
    yield compared(f"{what} at once", way, None, took["plain"], took["at_once"], n)


# Trials that are there


def plain_load(folder: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("trial_*.json"))]


def loading(quick: bool) -> Iterator[Line]:
    n, repeats = (500, 3) if quick else (5000, 7)
    with folder() as within:
        path, files = Path(within, "study.jsonl"), Path(within, "files")
        files.mkdir()
        run(path, n)
        trials = load_trials(path)
        for i, trial in enumerate(trials.values()):
            (files / f"trial_{i:05d}.json").write_text(json.dumps(trial.to_record()))
        assert [trial.params for trial in load_trials(files).values()] == [trial.params for trial in trials.values()]
        took = least(
            repeats,
            plain=lambda _: plain_load(files),
            journal=lambda _: load_trials(path),
            as_trials=lambda _: list(load_trials(path).values()),
            opened=lambda _: Journal(path).close(),
            files=lambda _: load_trials(files),
            one=lambda _: load_trials(files, n_threads=1),
            two=lambda _: load_trials(files, n_threads=2),
            lazy=lambda _: load_trials(files, lazy=True),
            lazy_journal=lambda _: load_trials(path, lazy=True),
        )
        texts = [path.read_text() for path in sorted(files.glob("trial_*.json"))]
    way, plain = "json.loads(path.read_text())", took["plain"]
    yield compared(f"load {n:,} finished trials: journal", way, 4, plain, took["journal"])
    yield compared("the same, each made a Trial", way, None, plain, took["as_trials"])
    yield compared("the same, keys alone (lazy)", way, None, plain, took["lazy_journal"])
    yield compared("the same, opened to go on", way, None, plain, took["opened"])
    yield compared(f"load {n:,} finished trials: files, 2 threads", way, 1.5, plain, took["two"])
    yield compared("the same, automatic choice of threads", way, 1.5, plain, took["files"])
    yield compared("the same, one thread", way, None, plain, took["one"])
    yield compared("the same, keys alone (lazy)", way, None, plain, took["lazy"])
    content = [text.encode() for text in texts]
    parsed = least(
        repeats,
        plain=lambda _: [json.loads(one) for one in texts],
        ours=lambda _: [orjson.loads(one) for one in content],
    )
    yield compared(f"parse {n:,} trials", "json", 2, parsed["plain"], parsed["ours"], n)


# Merging


def plain_merge(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = plain_merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def copied_once(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The same by who knows that every level is copied at every level above it."""

    def take(merged: dict[str, Any], override: Mapping[str, Any]) -> None:
        for key, value in override.items():
            if isinstance(value, dict) and isinstance(merged.get(key), dict):
                take(merged[key], value)
            else:
                merged[key] = copy.deepcopy(value)

    merged = copy.deepcopy(base)
    take(merged, override)
    return merged


def nested(levels: int, keys: Iterable[str], value: float) -> dict[str, Any]:
    """So many levels, each of these keys and of one more for the level below."""
    below = {"below": nested(levels - 1, keys, value)} if levels > 1 else {}
    return {**{key: [value, value] if key.endswith("7") else value for key in keys}, **below}


def merging(quick: bool) -> Iterator[Line]:
    base = nested(10, [f"key{i}" for i in range(99)], 1.0)
    override = nested(10, [f"key{i}" for i in range(50, 149)], 2.0)
    assert deep_merge(base, override) == plain_merge(base, override) == copied_once(base, override)
    took = least(
        20 if quick else 100,
        plain=lambda _: plain_merge(base, override),
        once=lambda _: copied_once(base, override),
        ours=lambda _: deep_merge(base, override),
    )
    yield compared("deep_merge, 10 levels x 100 keys", "copy.deepcopy at each level", 5, took["plain"], took["ours"])
    yield compared("the same", "copy.deepcopy once", 5, took["once"], took["ours"])


PARTS: dict[str, Callable[[bool], Iterator[Line]]] = {
    "names": names,
    "adding": adding,
    "looking_up": looking_up,
    "loading": loading,
    "merging": merging,
    "engine": engine,
    "resuming": resuming,
}


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row each."""
    asked = options("benchmarks.tuning", arguments, PARTS)
    versions = f"Optuna {optuna.__version__}, SQLite {sqlite3.sqlite_version}, orjson {orjson.__version__}"
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), versions, asked.quick)
    quiet()
    print(versions)
    print(f"{'what':48s} {'against: at least':40s} reached")
    with journal("tuning", about, asked.fresh) as done:
        for name in asked.parts:
            told = row(done, name, lambda: {"lines": [list(line) for line in PARTS[name](asked.quick)]})  # noqa: B023
            for what, against, figures, reached in told["lines"]:
                print(judged(f"{what:48s} {against:40s} {figures}", reached), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
