"""The section `tune`: which space is searched, by what, for how long, and where the search is kept."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass as checked

from surrogate_core.execution import ClusterNotFound, ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.tuning.guard import DuplicateGuard, PlaceNotReached
from surrogate_core.tuning.records import claimed_in
from surrogate_core.tuning.samplers import Pruner, Sampler
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.storage import Storage
from surrogate_core.tuning.study import Strategy, StudySpec, default_seed
from surrogate_core.tuning.workers import trial_executor
from tasks.errors import BadInput
from tasks.parsing import SECTION, Count, Positive, Seed, Text, member, said, unknown

KIND = "kind"
"""The name, in a design, of the kind of surrogate."""
MANY = 1000  # values of a field, of which all are checked
STORAGE = "SURROGATE_STORAGE"  # for URLs with passwords, which belong in no file


@checked(frozen=True, config=SECTION)
class Tune:
    space: dict[str, Any] | None = None
    strategy: Strategy = "optuna"
    sampler: Text | dict[str, Any] = "tpe"
    pruner: Text | dict[str, Any] = "none"
    n_trials: Count = 24
    batch: Count | None = None
    asynchronous: Annotated[bool, Strict()] = False
    seed: Seed | None = 0
    time_budget: Positive | None = None
    patience: Count | None = None
    smoke: Annotated[int, Strict(), Field(ge=0)] | None = None
    allow_resume: Annotated[bool, Strict()] = True
    storage: Text | dict[str, Any] | None = None
    guard: Text | None = None
    evaluations: Count = 8
    direction: Literal["minimize", "maximize"] = "minimize"
    steps: Count = 1
    timeout: Positive | None = None

    def study(self, n_steps: int) -> StudySpec:
        """How the space is searched, by trials of so many steps.

        Raises:
            BadInput: a value is not as expected, or does not go with another.
        """
        names = (
            "n_trials",
            "strategy",
            "batch",
            "asynchronous",
            "seed",
            "direction",
            "time_budget",
            "patience",
            "smoke",
        )
        with as_bad_input():
            return StudySpec(
                **{name: getattr(self, name) for name in names},
                sampler=Sampler(*_named("sampler", self.sampler)),
                pruner=Pruner(*_named("pruner", self.pruner)),
                n_steps=n_steps,
            )

    @property
    def fixed_seed(self) -> int:
        """The seed, wherever it comes from.

        Raises:
            BadInput: SURROGATE_RANDOM_SEED holds none.
        """
        if self.seed is not None:
            return self.seed
        try:
            return default_seed()
        except ValueError as error:
            raise BadInput(str(error)) from error

    def checked(self, space: TuningSpace, n_steps: int) -> StudySpec:
        """`study` of a space, where all is known to suit: what is wrong shows before any work.

        Raises:
            BadInput: a value is not as expected, or does not go with another.
        """
        spec = self.study(n_steps)
        if spec.proposed_by.kind == "grid":
            with as_bad_input():
                space.expand()
        _ = self.kept_at("")
        return spec

    def kept_at(self, name: str) -> Storage | None:
        """The database that keeps the study, if one does.

        Args:
            name: of the study there, unless the settings have one; whoever gives the same one joins it.

        Raises:
            BadInput: it is no URL of one, or the study is to begin anew.
        """
        given = self.storage or os.environ.get(STORAGE)
        if not given:
            return None
        known = dict(given) if isinstance(given, dict) else {"url": given}
        if not self.allow_resume:
            raise BadInput(
                "tune.allow_resume: expected true, as a database keeps the study, got false; "
                "another tune.storage.name begins another study"
            )
        names = [field.name for field in fields(Storage)]
        for key in known:
            if key not in names:
                raise BadInput(f"tune.storage.{key}: {unknown(key, names)}")
        if not isinstance(known.get("url"), str):
            raise BadInput(f"tune.storage.url: expected the URL of a database, got {said(known.get('url'))}")
        if name:
            known.setdefault("name", name)
        with as_bad_input():
            return Storage(**known)

    def open_guard(self, root: Path, name: str) -> AbstractContextManager[DuplicateGuard | None]:
        """What has been tried, if that is kept: at a URL, or in a file below a folder.

        Args:
            root: the folder.
            name: of what values depend on: of the same one designs are tried once.

        Raises:
            BadInput: it is neither, or does not answer.
        """
        if self.guard is None:
            return nullcontext()
        try:
            return DuplicateGuard(self.guard if "://" in self.guard else root / self.guard, name=name)
        except (ValueError, PlaceNotReached) as error:
            raise BadInput(f"tune.guard: {str(error).removeprefix('place: ')}") from error

    @property
    def own_space(self) -> TuningSpace:
        """The space of an objective of one's own.

        Raises:
            BadInput: there is none, or it is not as expected.
        """
        if self.space is None:
            raise BadInput("tune.space: expected names and what they may be, got nothing")
        return _space(self.space)

    def space_of_specs(self, champion: Surrogate) -> TuningSpace:
        """Kinds of surrogates, and of each the values that its fields may take.

        Raises:
            BadInput: a kind or a field is unknown, or a value does not suit the field.
        """
        branches = self._branches(champion)
        if len(branches) > 1:
            return _space({KIND: {"type": "branches", "branches": branches}})
        ((kind, of_fields),) = branches.items()
        return _space({KIND: {"type": "fixed", "value": kind}, **of_fields})

    def own_design(self, champion: Surrogate) -> dict[str, Any] | None:
        """The champion as a design of that space; None where it is none."""
        names = self._branches(champion).get(champion.kind)
        design = {KIND: champion.kind, **{name: getattr(champion, name) for name in names or ()}}
        try:
            self.space_of_specs(champion).raw(design)
        except ValueError:
            return None
        return design

    def _branches(self, champion: Surrogate) -> dict[str, Mapping[str, Any]]:
        """What each kind's fields may be; fields alone are the champion's."""
        given = self.space
        if given is None:
            given = {kind: None for kind, surrogate in SURROGATES.items() if surrogate.searched}
        if not given:
            raise BadInput("tune.space: expected at least one field of fit.surrogate with its values, got none")
        fields_of = [of for of in given.values() if of is None or (isinstance(of, Mapping) and "type" not in of)]
        is_nested = any(name in SURROGATES for name in given) or len(fields_of) == len(given)
        branches: dict[str, Mapping[str, Any]] = {}
        for kind, of_fields in given.items() if is_nested else [(champion.kind, given)]:
            path = f"tune.space.{kind}" if is_nested else "tune.space"
            if kind not in SURROGATES:
                raise BadInput(f"{path}: {unknown(kind, list(SURROGATES))}")
            branches[kind] = SURROGATES[kind].searched if of_fields is None else of_fields
            _check_fields(champion, kind, branches[kind], path)
        return branches


@contextmanager
def as_bad_input() -> Iterator[None]:
    """Tells what a search finds wrong with its settings, or does not reach, by the name of the setting.

    Raises:
        BadInput: in place of such an error.
    """
    try:
        yield
    except BadInput:
        raise
    except ClusterNotFound as error:
        raise BadInput(f"execution.{error}") from error
    except PlaceNotReached as error:
        raise BadInput(f"tune.guard: {str(error).removeprefix('place: ')}") from error
    except ValueError as error:
        raise BadInput(f"tune.{str(error).removeprefix('tune.')}") from error


def forget(journal: Path, guard: DuplicateGuard | None) -> None:
    """Lets a study begin anew: nothing that its journal tells of counts as tried."""
    if not journal.exists():
        return
    if guard is not None:
        with Journal(journal) as known:
            release(known, guard)
    journal.unlink()


def release(journal: Journal, guard: DuplicateGuard) -> None:
    """Gives back what the study of a journal has claimed."""
    for signature in claimed_in(journal):
        guard.remove(signature)


def workers(executor: ExecutorSpec, space: TuningSpace) -> ExecutorSpec:
    """`trial_executor`.

    Raises:
        BadInput: SURROGATE_MAX_CONCURRENT holds no number.
    """
    try:
        return trial_executor(executor, space)
    except ValueError as error:
        raise BadInput(str(error)) from error


def spec_of(champion: Surrogate, params: Mapping[str, Any], path: str = "tune.space") -> Surrogate:
    """The spec of a design: of the champion's kind with its other fields, else with defaults.

    Raises:
        BadInput: a value does not suit its field.
    """
    kind = params[KIND]
    own = {field.name: getattr(champion, field.name) for field in fields(champion)} if kind == champion.kind else {}
    spec: Surrogate = member(SURROGATES, "kind", {**own, **params}, path)
    return spec


def _check_fields(champion: Surrogate, kind: str, of_fields: Any, path: str) -> None:
    if not isinstance(of_fields, Mapping):
        raise BadInput(f"{path}: expected a mapping, got {said(of_fields)}")
    known = [field.name for field in fields(SURROGATES[kind])]
    for name, what in of_fields.items():
        if name not in known:
            raise BadInput(f"{path}.{name}: {unknown(name, known)}")
        if not isinstance(what, list | tuple) and not (isinstance(what, Mapping) and "type" in what):
            raise BadInput(f"{path}.{name}: expected a list, or a range such as {{type: int, ...}}, got {said(what)}")
        for value in _values(_space({name: what}, path), name):
            spec_of(champion, {KIND: kind, name: value}, path)


def _values(space: TuningSpace, name: str) -> list[Any]:
    """What a field may be: all of it, or of a range the ends."""
    if space.estimate.n_designs <= MANY:
        return [params[name] for params in space.expand()]
    leaf = space.leaves[name]
    of: Any = leaf.distribution
    raws = getattr(of, "choices", None) or (of.low, of.high)
    return [leaf.value(raw) for raw in raws]


def _space(spec: Mapping[str, Any], path: str = "tune.space") -> TuningSpace:
    try:
        return TuningSpace(spec, path)
    except ValueError as error:
        raise BadInput(str(error)) from error
    except TypeError as error:  # a date, say, which no key can be made of
        raise BadInput(f"{path}: {error}") from error


def _named(what: str, given: str | dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A name and options, of one or the other or `{kind: ..., ...}`."""
    if isinstance(given, str):
        return given, {}
    options = dict(given)
    if not isinstance(kind := options.pop("kind", None), str):
        raise BadInput(f"tune.{what}.kind: expected a name, got {said(kind)}")
    return kind, options
