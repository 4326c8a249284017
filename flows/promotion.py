"""`surrogate tune --promote`: the one place that changes params.yaml and moves MLflow's @champion.

`data/champions.json` remembers each promotion; like params.yaml it belongs into git.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML

from surrogate_core.atomic import write_file
from surrogate_core.surrogates.files import SURROGATES
from tasks.errors import BadInput
from tasks.keys import TUNING
from tasks.settings import load_settings, parse_spec

HISTORY = "data/champions.json"
Entry = dict[str, Any]
"""Of a promotion: `champion`, a spec, that took the place of `before`, by what `advantage`, and MLflow's `version`."""


def promote(root: Path, move_alias: Callable[[], str]) -> str:
    """Makes the challenger of the tuning that has just ended the champion, if it is better.

    Args:
        root: where params.yaml is, which gets the challenger's spec.
        move_alias: moves @champion to the challenger's model and returns that version.

    Returns:
        One line that says what was done.

    Raises:
        BadInput: params.yaml has another champion than was compared, or the history of champions cannot be read;
            nothing has been done.
    """
    tuning = orjson.loads((root / TUNING).read_bytes())
    if not tuning["challenger_is_better"]:
        return "the champion stays: no challenger is better"
    path = root / "params.yaml"
    before, spec = (tuning[side]["surrogate"] for side in ("champion", "challenger"))
    known, asked = history(root), load_settings(path).fit.spec
    if asked == parse_spec(spec):
        return "the challenger is the champion already"
    if asked != (compared := parse_spec(before)):
        raise BadInput(f"fit.surrogate: expected the champion that was compared, {compared}, got {asked}; run again")
    content = with_surrogate(path.read_text(encoding="utf-8"), spec)
    version = move_alias()
    entry = {"champion": spec, "before": before, "advantage": tuning["advantage"], "version": version}
    write_file(root / HISTORY, orjson.dumps([*known, entry], option=orjson.OPT_INDENT_2) + b"\n")
    write_file(path, content.encode())
    return (
        f"promoted: fit.surrogate in params.yaml is the challenger's, and @champion is version {version}; "
        f"{HISTORY} tells of {len(known) + 1} promotion{'s' * bool(known)}; run again"
    )


def history(root: Path) -> list[Entry]:
    """Promotions, the first one first; none where there was none.

    Raises:
        BadInput: the file is damaged.
    """
    path = root / HISTORY
    try:
        known = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise BadInput(f"{path}: expected a list of promotions, got {error}; mend it, or remove it") from error
    if not isinstance(known, list):
        raise BadInput(f"{path}: expected a list of promotions, got {type(known).__name__}; mend it, or remove it")
    return known


def with_surrogate(text: str, spec: dict[str, Any]) -> str:
    """The text of a params.yaml with another `fit.surrogate`; comments and order stay, defaults stay unsaid."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    content = yaml.load(text)
    section = content["fit"]["surrogate"]
    for name in [name for name in section if name not in spec]:
        del section[name]
    spec, defaults = (orjson.loads(orjson.dumps(one)) for one in (spec, SURROGATES[spec["kind"]]().to_config()))
    for place, (name, value) in enumerate(spec.items()):
        if name in section:
            section[name] = value
        elif value != defaults[name]:
            section.insert(place, name, value)
    sink = io.StringIO()
    yaml.dump(content, sink)
    return sink.getvalue()
