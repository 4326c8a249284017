"""`surrogate profile` and `surrogate bench`, as far as they need no server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as suite
from benchmarks.rows import judged, options
from flows import profiling
from flows.cli import cli


def test_a_command_is_profiled(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["profile", "-o", str(page), "--", "problems", "--json"])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"profile  {page.as_uri()}\n")
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["spans"][0]["name"] == "surrogate problems --json"
    assert told["functions"]
    assert json.loads(page.with_suffix(".speedscope.json").read_text())["profiles"]


def test_without_its_like_functions_are_not_watched(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["profile", "--level", "basic", "-o", str(page), "--", "problems"])
    assert done.exit_code == 0, done.output
    assert "Functions" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--", "run"], "params.yaml: expected a settings file, got none"),
        (["--", "runn"], "No such command 'runn'"),
        (["--"], "Missing argument"),
        (["-o", "page.txt", "--", "run"], "-o: expected a file that ends with .html, got page.txt"),
    ],
)
def test_what_cannot_be_profiled_is_refused(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["profile", *arguments])
    assert done.exit_code == 2
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(cli, ["profile", "-o", str(tmp_path / "file" / "page.html"), "--", "problems"])
    assert done.exit_code == 2
    assert "-o: expected a file that can be written" in done.stderr


# --- the suite of benchmarks

PROGRAMS = {
    "good": f"print('rows')\nprint({judged('fast  enough', True)!r})\nprint({judged('good enough', False)!r})",
    "silent": "print('a table')",
    "broken": "raise SystemExit(3)",
}


@pytest.fixture
def benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small benchmarks in place of ours."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    for name, source in PROGRAMS.items():
        (package / f"{name}.py").write_text(source)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(suite, "NAMES", tuple(PROGRAMS))
    return tmp_path


def test_verdicts_are_gathered_in_one_table_with_the_machine(
    benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    start = max(i for i, line in enumerate(lines) if line == suite.described())
    assert [line.split(maxsplit=2) for line in lines[start + 1 :]] == [
        ["good", "yes", "fast enough"],
        ["good", "NO", "good enough"],
        ["silent", "nothing", "is required of it; its table is above"],
        ["broken", "NO", "failed with exit status 3"],
    ]
    assert (benchmarks / "kept" / "silent.txt").read_text() == f"{suite.described()}\n\na table\n"


def test_one_of_them_may_be_asked_for(benchmarks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["silent"]) == 0
    assert "== good" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        suite.main(["fast"])
    assert "NAME: expected some of good, silent, broken, got 'fast'" in capsys.readouterr().err


def test_parts_of_a_benchmark_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert options("it", [], ("a", "b")).parts == ["a", "b"]
    assert options("it", ["b", "--quick"], ("a", "b")).parts == ["b"]
    with pytest.raises(SystemExit):
        options("it", ["c"], ("a", "b"))
    assert "expected some of a, b, got 'c'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_the_suite_of_the_clone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows", "bench", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "surrogate bench: error: NAME: expected some of degenerate, performance" in done.stderr


def test_an_installed_package_has_no_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "__file__", str(tmp_path / "flows" / "profiling.py"))
    done = CliRunner().invoke(cli, ["bench"])
    assert done.exit_code == 2
    assert f"{tmp_path}: expected benchmarks/, got none; they come with a clone of the repository" in done.stderr
