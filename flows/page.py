"""`surrogate report`: the outputs on disk as one HTML page that needs no network, to read, print or send.

It is here and not in `tasks`, as what only shows results must change no stage's cache key and no line of dvc.lock.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from ruamel.yaml import YAML

from flows.last_run import last_run, versions
from flows.page_parts import headline_of, overview, part_of
from surrogate_core.atomic import write_file
from tasks.errors import BadInput
from tasks.keys import STAGES, stage_key
from tasks.problem import Problem
from tasks.workspace import Workspace, git_revision


def write_page(workspace: Workspace, target: Path | None = None) -> Path:
    """Writes the page, by default to `report.html` among what is not versioned, and returns where it is.

    Raises:
        BadInput: no stage has run, an output is damaged, or the file cannot be written; nothing has been written.
    """
    place = (target or workspace.unversioned / "report.html").absolute()
    content = page(workspace).encode()
    try:
        write_file(place, content)
    except OSError as error:
        raise BadInput(f"-o: expected a file that can be written, got {place} ({error.strerror})") from error
    return place


def page(workspace: Workspace) -> str:
    """The page of all stages whose files are there; of the others it says that they have not run.

    Raises:
        BadInput: there are none, or one of them is damaged.
    """
    parts = {stage: part_of(stage, workspace) for stage in STAGES}
    if not any(parts.values()):
        same = "" if workspace.out == workspace.root else " with the same -S and --params"
        maker = f"`surrogate run`{same} makes them"
        raise BadInput(f"{workspace.out / 'data'}: expected the outputs of a stage, got none; {maker}")
    known = last_run(workspace)
    problem = workspace.settings.problem
    text = _template().render(
        subject=_subject(problem),
        direction=problem.direction,
        made=datetime.now().astimezone().isoformat(),
        problem=_said(problem),
        stages=list(STAGES),
        parts=parts,
        outdated=[stage for stage in STAGES if parts[stage] and _is_outdated(stage, workspace, known)],
        headline=headline_of(workspace, parts),
        **overview(workspace, parts),
        timings=known["stages"],
        run=known["run"],
        versions=known["run"].get("versions") or versions(),
        settings=_yaml(asdict(workspace.settings)),
        digest=workspace.settings.digest,
        revision=git_revision(workspace.root),
    )
    return text.strip() + "\n"


def _subject(problem: Problem) -> str:
    """What was optimized: the black box, or the table that stands for it."""
    name = getattr(problem, problem.kind)
    return name if isinstance(name, str) else " ".join(name)


def _said(problem: Problem) -> dict[str, Any]:
    """The settings of the problem that are not their defaults; its variables have a table of their own."""
    settings = {field.name: getattr(problem, field.name) for field in fields(problem)}
    unsaid = {field.name for field in fields(problem) if settings[field.name] in (field.default, [])}
    return {name: value for name, value in settings.items() if name not in {*unsaid, "space", "columns"}}


def _is_outdated(stage: str, workspace: Workspace, known: Mapping[str, Any]) -> bool:
    """Whether what the stage depends on has changed since it ran here; False where that is not known."""
    try:
        return bool(known["stages"][stage]["key"] != stage_key(STAGES[stage], workspace))
    except (KeyError, BadInput):
        return False


def _yaml(content: Any) -> str:
    yaml, sink = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # in the order of the settings
    yaml.dump(orjson.loads(orjson.dumps(content)), sink)  # in plain types
    return sink.getvalue()


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("flows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Any] = {"number": _number, "exact": _exact, "fixed": _fixed, "when": _when}
    environment.filters |= filters
    return environment.get_template("report.html")


def _number(value: Any, digits: int = 4) -> str:
    """As people read it: few digits, and a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if isinstance(value, float) else _exact(value)


def _exact(value: Any) -> str:
    """A variable's value, to be typed in again: a number, text or, as in YAML, true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _fixed(value: float, decimals: int = 1) -> str:
    """Of a column of like numbers: seconds, percent."""
    return f"{value:.{decimals}f}"


def _when(time: str) -> str:
    """A time to the minute."""
    return time[:16].replace("T", " ")
