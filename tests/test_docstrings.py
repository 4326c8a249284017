"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest
from workspace_fixture import ROOT

MODULES = [path for path in sorted((ROOT / "surrogate_core").rglob("*.py")) if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_examples_do_what_they_say(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    told = doctest.testmod(module)
    assert told.attempted > 0
    assert told.failed == 0
