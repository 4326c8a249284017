"""What a study writes to its journal, and what one that goes on finds there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from surrogate_core.journal import Journal
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.trials import PREFIX, Trial

EVERY = 0.5
"""Seconds within which trials are brought to the disk together; what lasts longer is so one by one."""
TRIES = 2  # of a trial whose process was killed
_STUDY, _BATCH, _CLAIM = "study", "batch/", "claim/"
Duplicate = tuple[int, tuple[Any, ...], float | None]
"""How many designs were proposed before in the batch, the raw proposal, and the value it was answered with, if any."""


class Records:
    """The journal of one study.

    Args:
        journal: what there is, and where all is written; None for a study that is not remembered.
        identity: what a study must have in common with the one that has written the journal.

    Raises:
        ValueError: the journal is of another study.
    """

    def __init__(self, journal: Journal | None, identity: Mapping[str, Any]) -> None:
        self._journal = journal
        self._ended: dict[int, Trial] = {}
        self._begun: dict[int, Mapping[str, Any]] = {}
        self._begun_here: set[int] = set()
        self.n_batches = 0
        if journal is None:
            return
        _check(journal, identity)
        for key, record in journal.ended.items():
            if key.startswith(PREFIX):
                number = int(key[len(PREFIX) :])
                self._ended[number] = Trial.from_record(record, number)
        for key in journal.in_flight:
            if key.startswith(PREFIX):
                self._begun[int(key[len(PREFIX) :])] = journal.begun(key)[1]["params"]

    def in_order_of_end(self) -> list[tuple[Trial, bool]]:
        """All trials that have ended, none of them a duplicate."""
        return [(trial, False) for trial in self._ended.values()]

    def take_up(self, size: Callable[[int], int]) -> list[tuple[Trial, bool]]:
        """Trials of the batches that need not be proposed again, as they were, and whether each was a duplicate then.

        Args:
            size: of a batch, before which there are so many trials. One that was smaller, as its study was to end with
                it, is proposed again, and so is one of which a trial is not there.
        """
        history: list[tuple[Trial, bool]] = []
        n_told = 0
        while self._journal is not None:
            batch = self._journal.ended.get(f"{_BATCH}{self.n_batches}")
            if batch is None or batch["n"] < size(n_told):
                break
            numbers = range(batch["first"], batch["first"] + batch["n"])
            if not self._ended.keys() >= set(numbers):  # their lines were damaged
                break
            for place, number in enumerate([*numbers, None]):
                again = [_again(tuple(raw), value) for at, raw, value in batch.get("duplicates", ()) if at == place]
                history += [(trial, True) for trial in again]
                if number is not None:
                    history.append((self._ended[number], False))
            n_told += batch["n"]
            self.n_batches += 1
        return history

    @property
    def in_flight(self) -> Mapping[int, Mapping[str, Any]]:
        """Designs whose trial was begun and has not ended, by number."""
        return dict(sorted(self._begun.items()))

    @property
    def claimed(self) -> list[str]:
        """Signatures that are this study's, whoever else knows them as claimed."""
        return [] if self._journal is None else claimed_in(self._journal)

    def claim(self, signature: str) -> None:
        """Remembers that a signature is about to be claimed: a kill after it must not make it somebody else's."""
        if self._journal is not None:
            self._journal.end(f"{_CLAIM}{signature}", {}, EVERY)

    def refused(self, signature: str) -> None:
        """It is somebody else's."""
        if self._journal is not None:
            self._journal.end(f"{_CLAIM}{signature}", {"refused": True}, EVERY)

    def known(self, number: int, params: Mapping[str, Any]) -> Trial | None:
        """What became of a trial before."""
        trial = self._ended.get(number)
        return trial if trial is not None and trial.key == trial_key(params) else None

    def number_of(self, params: Mapping[str, Any], otherwise: int) -> int:
        """The number under which a design was begun, or another one that is free."""
        key = trial_key(params)
        for number, begun in self._begun.items():
            if trial_key(begun) == key:
                return number
        while otherwise in self._ended or otherwise in self._begun:
            otherwise += 1
        return otherwise

    def is_deadly(self, number: int, params: Mapping[str, Any]) -> bool:
        """Whether so many processes were killed amid a trial that it is not tried again."""
        if self._journal is None:
            return False
        times, before = self._journal.begun(f"{PREFIX}{number}")
        return times >= TRIES and trial_key(before["params"]) == trial_key(params)

    def begin(self, number: int, params: Mapping[str, Any]) -> None:
        """Remembers that a trial begins."""
        self._begun[number] = params
        self._begun_here.add(number)
        if self._journal is not None:
            self._journal.start(f"{PREFIX}{number}", {"params": params})

    def end(self, trial: Trial) -> None:
        """Remembers what became of a trial."""
        self._ended[trial.number] = trial
        self._begun.pop(trial.number, None)
        self._begun_here.discard(trial.number)
        if self._journal is not None:
            self._journal.end(f"{PREFIX}{trial.number}", trial.to_record(), EVERY)

    def interrupt(self) -> None:
        """Remembers that what is under way ends with this process, but has not ended it."""
        for number in self._begun_here:
            if self._journal is not None:
                self._journal.interrupt(f"{PREFIX}{number}")

    def close_batch(self, first: int, n: int, duplicates: Sequence[Duplicate]) -> None:
        """Remembers that a batch of n trials, from the first number on, is told, and the duplicates among them."""
        if self._journal is not None:
            record: dict[str, Any] = {"first": first, "n": n}
            if duplicates:
                record["duplicates"] = list(duplicates)
            self._journal.end(f"{_BATCH}{self.n_batches}", record, EVERY)
        self.n_batches += 1


def claimed_in(journal: Journal) -> list[str]:
    """The signatures that the study of a journal has claimed."""
    ended = journal.ended.items()
    return [key[len(_CLAIM) :] for key, record in ended if key.startswith(_CLAIM) and not record]


def _again(raw: tuple[Any, ...], value: float | None) -> Trial:
    """A duplicate: what it was answered with."""
    return Trial(-1, {}, math.nan, "failed", "", (), raw) if value is None else Trial(-1, {}, value, "ok", "", (), raw)


def _check(journal: Journal, identity: Mapping[str, Any]) -> None:
    now = orjson.loads(orjson.dumps(identity))
    if _STUDY not in journal:
        journal.end(_STUDY, now)
        return
    for name, value in journal[_STUDY].items():
        if now.get(name) != value:
            got, before = (trial_key({name: one})[:200] for one in (now.get(name), value))
            raise ValueError(
                f"{name}: expected that of the study which {journal.path} remembers, {before}, got {got}; "
                "choose another journal, or begin anew"
            )
