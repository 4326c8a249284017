"""The documentation is run as it stands: its files are written, its commands typed, and what they print compared.

A block of `console` has commands after `$` and what they print, where `...` stands for anything; a block whose info
names a file is that file's content.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from workspace_fixture import HANG_SECONDS, ROOT

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def told(expected: str, printed: str) -> bool:
    """Whether lines are those expected, `...` being anything within a line, or any lines where it is one.

    How wide columns are does not matter, nor the lines that tell of progress.
    """
    pattern = ""
    for line in squeezed(expected):
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("...")) + r"\n"
    lines = [line for line in squeezed(printed) if not re.match(r"\w+ \d+ of \d+ ", line)]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def squeezed(text: str) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in text.rstrip("\n").split("\n")] if text.strip() else []


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a 1\n", "a 1\n", True),
        ("a 1\n", "a 2\n", False),
        ("a ...\n", "a 2.5 s\n", True),
        ("a ... end\n", "a 2.5 s\n", False),
        ("a\n...\nb\n", "a\nx\ny\nb\n", True),
        ("a\n...\nb\n", "a\nb\nc\n", False),
        ("...\nb\n", "a\nb\n", True),
        ("a\n...\n", "a\n", True),
        ("a.c\n", "abc\n", False),
        ("a   b\n", "a b  \n", True),
        ("a ...\nb\n", "a 1 s\na 3 of 4 things\nb\n", True),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_the_comparison_tells_what_differs(expected: str, printed: str, same: bool) -> None:
    assert told(expected, printed) == same


def follow(page: Path, folder: Path, environment: Mapping[str, str]) -> int:
    """Does all that a page says, in a folder, and returns how many commands that were."""
    number = 0
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["file"]:
            (folder / block["file"]).write_text(block["text"], encoding="utf-8")
        elif block["kind"] == "console":
            _, *parts = re.split(r"^\$ ", block["text"], flags=re.MULTILINE)
            for part in parts:
                command, _, expected = part.partition("\n")
                number += 1
                if command.startswith("cd "):
                    folder = (folder / command.removeprefix("cd ")).resolve()
                    assert folder.is_dir(), command
                    continue
                done = subprocess.run(
                    ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
                    timeout=HANG_SECONDS, stdin=subprocess.DEVNULL, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
                assert done.stderr == "", f"{command}\n{done.stderr}"
                assert told(expected, done.stdout), f"{command}\n{expected}\nwas expected of\n{done.stdout}"
    return number


@pytest.fixture
def activated(surroundings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a user who has activated the project's."""
    bin_folder = Path(sys.prefix) / "bin"
    assert shutil.which("surrogate", path=str(bin_folder))
    return {**surroundings, "PATH": f"{bin_folder}:{surroundings['PATH']}"}


@pytest.mark.parametrize(("page", "n_commands"), [("README.md", 3), ("docs/tutorial.md", 15), ("docs/tuning.md", 3)])
def test_a_page_does_what_it_says(page: str, n_commands: int, activated: dict[str, str], tmp_path: Path) -> None:
    assert follow(ROOT / page, tmp_path, activated) == n_commands


def test_the_page_on_performance_is_a_script_that_runs(tmp_path: Path, activated: dict[str, str]) -> None:
    blocks = [
        block for block in BLOCK.finditer((ROOT / "docs/performance.md").read_text()) if block["kind"] == "python"
    ]
    assert len(blocks) >= 14
    (tmp_path / "page.py").write_text("\n".join(block["text"] for block in blocks))
    quiet = {**activated, "TF_CPP_MIN_LOG_LEVEL": "3"}  # of XLA, which comments on what it loads from the tests' cache
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"optimization.html", "search.json", "rows.parquet"} <= {path.name for path in tmp_path.iterdir()}
