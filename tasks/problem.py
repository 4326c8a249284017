"""The section `problem`: what is optimized: a function, a program, a table, or a problem of the library."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass as checked

from surrogate_core.constraints import Constraint
from surrogate_core.dataset import Dataset
from surrogate_core.execution import STOPPING
from surrogate_core.problems.black_box import BlackBox
from surrogate_core.problems.command import Command
from surrogate_core.problems.library import PROBLEMS, LibraryProblem
from surrogate_core.space import VARIABLES, SearchSpace, Variable
from surrogate_core.table import Columns, read_table
from tasks.errors import BadInput
from tasks.parsing import SECTION, Positive, Seed, Text, member, unknown

KINDS = ("function", "command", "data", "name")
Scalar = Annotated[int, Strict()] | Annotated[float, Strict()] | Annotated[bool, Strict()] | Text


class Callee(Protocol):
    """A black box: called with parameters; `check` finds out whether it can be."""

    def __call__(self, params: Mapping[str, Any]) -> Any: ...

    def check(self) -> None: ...


@checked(frozen=True, config=SECTION)
class TableColumns:
    output: Text
    inputs: list[Text] | None = None
    status: Text | None = None
    ok: tuple[Scalar, ...] = ("ok", True)
    failed: tuple[Scalar, ...] = ()
    noise: Text | None = None
    gradients: dict[str, Text] = Field(default_factory=dict)


@checked(frozen=True, config=SECTION)
class Problem:
    function: Text | None = None
    command: list[Text] | None = None
    data: Text | None = None
    name: Text | None = None
    source: Text | None = None
    space: dict[str, dict[str, Any]] | None = None
    constraints: list[Text] = Field(default_factory=list)
    columns: TableColumns | None = None
    version: Annotated[int, Strict()] | Text = 1
    direction: Literal["minimize", "maximize"] = "minimize"
    timeout: Positive | None = None
    retries: Annotated[int, Strict(), Field(ge=0)] = 0
    own_folder: Annotated[bool, Strict()] = False
    shift: Seed | None = None

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def is_offline(self) -> bool:
        """Whether there is nothing to evaluate, only a table."""
        return self.data is not None

    @property
    def sign(self) -> float:
        """By which a value is multiplied to be minimized."""
        return -1.0 if self.direction == "maximize" else 1.0

    @property
    def search_space(self) -> SearchSpace | None:
        """None where it is inferred from the table."""
        if self.name is not None:
            return LibraryProblem(self.name, self.shift).problem.space
        return None if self.space is None else parse_space(self.space, self.constraints)

    @property
    def known_minimum(self) -> float | None:
        """The least value of a problem of the library."""
        return None if self.name is None else LibraryProblem(self.name, self.shift).problem.minimum

    def black_box(self, root: Path, folders: Path) -> Callee:
        """What is called.

        Args:
            root: where a program is run and looked for.
            folders: below which each evaluation of a program has a folder of its own, if it is to have one.
        """
        if self.name is not None:
            return LibraryProblem(self.name, self.shift)
        if self.command is not None:
            return Command(tuple(self.command), str(root), str(folders) if self.own_folder else None)
        assert self.function is not None
        space = self.search_space
        return BlackBox(self.function, space.names if space else None)

    def sources(self, root: Path) -> list[Path]:
        """The files and folders whose content is the black box's identity; none of a problem of the library.

        Raises:
            BadInput: they are not known.
        """
        conditions = [_module(target, f"problem.constraints[{i}]", root) for i, target in self._named_constraints]
        return [*self._own_sources(root), *conditions]

    def _own_sources(self, root: Path) -> list[Path]:
        if self.source is not None:
            source = root / self.source
            if root.resolve().is_relative_to(source.resolve()):
                raise BadInput(
                    f"problem.source: expected a file, or a folder of its own, got {self.source!r}, where runs write to"
                )
            return [source]
        if self.data is not None:
            return [root / self.data]
        if self.command is not None:
            found = [root / word for word in self.command if os.path.isfile(root / word)]  # whatever its length
            program = shutil.which(self.command[0])
            return found or ([Path(program)] if program else [])
        return [] if self.function is None else [_module(self.function, "problem.function", root)]

    @property
    def _named_constraints(self) -> list[tuple[int, str]]:
        """The constraints that are named functions, with their places."""
        return [(i, of) for i, of in enumerate(self.constraints) if not Constraint(of).is_expression]

    def rows(self, root: Path, n_least: int) -> Dataset:
        """The rows of `data`, of which at least so many have a value.

        Raises:
            BadInput: the file cannot be read, or something in it is not as expected.
        """
        assert self.data is not None
        assert self.columns is not None
        try:
            rows = read_table(root / self.data, Columns(**asdict(self.columns)), self.search_space, self.sign)
        except ValueError as error:
            raise BadInput(f"problem.{error}") from error
        if rows.ok.n_samples < n_least:
            without = f" ({rows.reason[rows.status != 'ok'][0]})" if rows.ok.n_samples < rows.n_samples else ""
            raise BadInput(
                f"problem.data: expected at least 2 * validate.folds = {n_least} rows with a value, got "
                f"{rows.ok.n_samples} of {rows.n_samples}{without}"
            )
        return rows

    def check(self, root: Path, n_rows: int) -> None:
        """Finds out, before any work is done, what can be found out without a call; `n_rows` as for `rows`.

        Raises:
            BadInput: a table is not as expected, a constraint no function of it, or a program cannot be started.
        """
        space = self.search_space
        for i, target in self._named_constraints:
            try:
                BlackBox(target, space.names if space else None).check(as_keywords=True)
            except ValueError as error:
                raise BadInput(f"problem.constraints[{i}]: {error}") from error
        if self.is_offline:
            self.rows(root, n_rows)
        elif self.command is not None:
            try:
                self.black_box(root, root).check()
            except ValueError as error:
                raise BadInput(f"problem.command: {error}") from error


def _module(target: str, field: str, root: Path) -> Path:
    module = BlackBox(target).source()
    if module is None:
        raise BadInput(f"{field}: expected package.module:name below {root}, got {target!r}")
    return module


def check_problem(problem: Problem, executor: str) -> None:
    """Raise BadInput unless the fields go together."""
    given = [kind for kind in KINDS if getattr(problem, kind) is not None]
    if len(given) != 1:
        raise BadInput(f"problem: expected one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}")
    kind = given[0]
    belongs = {"source": "function or command", "columns": "data", "own_folder": "command", "shift": "name"}
    for field, kinds in belongs.items():
        if getattr(problem, field) not in (None, False) and kind not in kinds:
            raise BadInput(f"problem.{field}: expected only with problem.{kinds}, got it with problem.{kind}")
    if kind == "name":
        if problem.name not in PROBLEMS:
            raise BadInput(f"problem.name: {unknown(str(problem.name), list(PROBLEMS), 'problem')}")
        if problem.space is not None or problem.constraints:
            raise BadInput("problem.space: expected none with problem.name, whose space is known, got one")
        if problem.direction != "minimize":
            raise BadInput("problem.direction: expected 'minimize' with problem.name, got 'maximize'")
    if kind == "data" and problem.columns is None:
        raise BadInput("problem.columns.output: expected the name of the column to optimize, got none")
    if kind in ("function", "command") and problem.space is None:
        raise BadInput("problem.space: expected the variables with their bounds, got none")
    if kind == "data" and problem.space is None and problem.constraints:
        raise BadInput("problem.space: expected the variables that problem.constraints are of, got none")
    if problem.command is not None and not problem.command:
        raise BadInput("problem.command: expected a program and its arguments, got an empty list")
    for field, value in (("problem.timeout", problem.timeout), ("problem.command", problem.command)):
        if value is not None and executor not in STOPPING:
            raise BadInput(
                f"execution.executor: expected 'processes' or 'dask', which can stop a call, "
                f"got {executor!r} with {field}"
                + ("; or set problem.timeout to null" if field == "problem.timeout" else "")
            )
    try:
        _ = problem.search_space
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"problem.{error}") from error


def parse_space(
    config: Mapping[str, Mapping[str, Any]], constraints: list[str] | None = None, path: str = "problem.space"
) -> SearchSpace:
    """A search space of plain values."""
    variables: dict[str, Variable] = {
        name: member(VARIABLES, "type", given, f"{path}.{name}") for name, given in config.items()
    }
    try:
        return SearchSpace(variables, constraints or [])
    except ValueError as error:
        where = "problem.constraints" if str(error).startswith("constraints") else path
        raise BadInput(f"{where}{str(error).removeprefix('space').removeprefix('constraints')}") from error
