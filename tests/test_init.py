"""`surrogate init`: what it makes works as it stands, what is in the way stays, and nothing is half made."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from flows.cli import cli
from flows.init import COMMAND, Wish, dvc_yaml, workspace_files
from surrogate_core.atomic import write_file
from tasks.keys import STAGES
from tasks.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
TABLE = "x,kind,load,run\n" + "\n".join(f"{i / 4},{'ab'[i % 2]},{i * i},same" for i in range(12)) + "\n"
INPUTS = ["--inputs", "x,kind"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    (tmp_path / "my tests.csv").write_text(TABLE)
    return tmp_path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments])


def settings_of(folder: Path) -> Settings:
    return load_settings(folder / "params.yaml")


@pytest.mark.parametrize(
    ("arguments", "kind", "files"),
    [
        ([], "function", {"problem.py"}),
        (["--command"], "command", {"simulate.py"}),
        (["--data", "my tests.csv", "--output", "load", "--maximize", *INPUTS], "data", {"my tests.csv"}),
    ],
    ids=["function", "command", "data"],
)
def test_a_workspace_of_each_kind_can_be_run_as_it_stands(
    arguments: list[str], kind: str, files: set[str], here: Path
) -> None:
    done = init("lab", *arguments, "--no-git", "--no-dvc")
    assert done.exit_code == 0, done.output
    lab = here / "lab"
    assert {path.name for path in lab.iterdir()} == files | {"params.yaml", "requirements.txt", ".gitignore"}
    assert "dvc   not wanted: nothing is versioned, all else works" in done.output
    assert done.output.endswith("next  cd lab, look at params.yaml, then: surrogate run\n")
    problem = settings_of(lab).problem
    assert problem.kind == kind
    problem.check(lab, 10)
    assert all(path.exists() for path in problem.sources(lab))
    assert (problem.sign == -1) == ("--maximize" in arguments)


def test_the_templates_evaluate_to_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"temperature": 80.0, "minutes": 100, "catalyst": "zinc"}
    values = []
    for kind, options in (("function", []), ("command", ["--command"])):
        assert init(kind, *options, "--no-git", "--no-dvc").exit_code == 0
        problem = settings_of(here / kind).problem
        assert problem.search_space is not None
        assert problem.search_space.is_feasible(problem.search_space.point(asked))
        monkeypatch.chdir(here / kind)
        values.append(problem.black_box(here / kind, here)(asked))
        monkeypatch.chdir(here)
    assert values[0] == pytest.approx(values[1]["value"])


def test_a_table_gives_its_variables_to_the_settings(here: Path) -> None:
    assert (
        init("--data", "my tests.csv", "--output", "load", *INPUTS, "--no-git", "--no-dvc").exit_code == 0
    )  # beside it
    assert (here / "my tests.csv").read_text() == TABLE
    text = (here / "params.yaml").read_text()
    assert "    x: {type: float, low: 0.0, high: 2.75}\n    kind: {type: categorical, choices: [a, b]}\n" in text
    problem = settings_of(here).problem
    assert problem.data == "my tests.csv"
    assert problem.rows(here, 10).n_samples == 12


def test_git_and_dvc_are_initialized_where_they_are_not_yet(here: Path) -> None:
    done = init("lab")
    assert "git   a new repository; commit when you like\ndvc   initialized: `dvc repro`" in done.output
    lab = here / "lab"
    assert (lab / ".git").is_dir()
    assert "analytics = false" in (lab / ".dvc" / "config").read_text()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=lab, capture_output=True, text=True, check=True)
    assert "dvc.yaml" in status.stdout
    inner = init("lab/inner")
    assert "git   in the repository that is there\ndvc   initialized" in inner.output
    assert (lab / "inner" / ".dvc").is_dir()
    assert not (lab / "inner" / ".git").exists()


def test_dvc_finds_the_command_before_any_has_run(here: Path) -> None:
    assert init("lab", "--no-git").exit_code == 0
    assert (here / "lab" / ".surrogate" / "bin" / "surrogate").resolve().name == "surrogate"
    assert init("plain", "--no-git", "--no-dvc").exit_code == 0
    assert not (here / "plain" / ".surrogate").exists()


@pytest.mark.parametrize(
    ("there", "then"),
    [
        (b"mine", b"mine\n.surrogate/\nmlruns/\nruns/\n__pycache__/\n"),
        (b"/runs\r\n!mlruns\n", b"/runs\r\n!mlruns\n.surrogate/\n__pycache__/\n"),
        (b"", b".surrogate/\nmlruns/\nruns/\n__pycache__/\n"),
    ],
    ids=str,
)
def test_what_git_is_to_ignore_is_added_to_what_is_there(there: bytes, then: bytes, here: Path) -> None:
    (here / ".gitignore").write_bytes(there)
    done = init("--no-git", "--no-dvc")
    assert done.output.startswith("made  problem.py, params.yaml, requirements.txt, .gitignore (added to) in .\n")
    assert (here / ".gitignore").read_bytes() == then
    for name in ("problem.py", "params.yaml", "requirements.txt"):
        (here / name).unlink()
    assert ".gitignore" not in init("--no-git", "--no-dvc").output  # nothing is missing any more
    assert (here / ".gitignore").read_bytes() == then


def test_the_hint_can_be_pasted_into_a_shell(here: Path) -> None:
    assert init("sp ace", "--no-git", "--no-dvc").output.endswith(
        "next  cd 'sp ace', look at params.yaml, then: surrogate run\n"
    )


def test_a_column_named_noise_is_no_variable(here: Path) -> None:
    (here / "n.csv").write_text("x,noise,y\n" + "".join(f"{i},0.{i},{i * i}\n" for i in range(1, 12)))
    assert init("lab", "--data", "n.csv", "--output", "y", "--no-git", "--no-dvc").exit_code == 0
    problem = settings_of(here / "lab").problem
    assert problem.search_space is not None
    assert problem.search_space.names == ("x",)
    assert problem.rows(here / "lab", 10).noise is not None


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("t.csv", "x,reason,y\n1,2,3\n2,3,4\n", "--inputs: expected names other than noise, objective, reason, status"),
        ("t.csv", "x,noise,y\n1,-2,3\n2,3,4\n", "--data: column 'noise', row 1: expected a standard deviation"),
        ("requirements.txt", "x,y\n1,2\n2,3\n", "--data: expected a name that no file of the workspace has, got 'req"),
        ("Requirements.TXT", "x,y\n1,2\n2,3\n", "--data: expected a name that no file of the workspace has, got 'Req"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_taken_is_told_by_an_option(name: str, text: str, line: str, here: Path) -> None:
    (here / name).write_text(text)
    done = init("lab", "--data", name, "--output", "y")
    assert done.exit_code == 2
    assert done.output.startswith(f"surrogate: {line}")
    assert len(done.output.splitlines()) == 1
    assert not (here / "lab").exists()


def test_without_git_all_else_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    done = init("lab")
    assert done.exit_code == 0
    assert "git   not installed: no repository\ndvc   initialized" in done.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--data", "nowhere.csv", "--output", "y"], "--data: expected a table, got 'nowhere.csv' (No such file or"),
        (["--data", "my tests.csv"], "--output: expected the column of --data to optimize, got none"),
        (["--data", "my tests.csv", "--output", "lod"], "--output: expected one of the columns"),
        (["--data", "my tests.csv", "--output", "load"], "--inputs: expected columns that vary, got"),
        (["--data", "my tests.csv", "--command"], "--command: expected only one of --command and --data, got both"),
        (["--output", "y"], "--output: expected only with --data, got none"),
        (["--maximize"], "--maximize: expected only with --data, got none"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_line_and_makes_nothing(arguments: list[str], line: str, here: Path) -> None:
    done = init("lab", *arguments)
    assert done.exit_code == 2
    assert done.output.startswith(f"surrogate: {line}")
    assert len(done.output.splitlines()) == 1
    assert not (here / "lab").exists()


@pytest.mark.parametrize("name", ["params.yaml", "problem.py", "dvc.yaml"])
def test_what_is_there_is_never_overwritten(name: str, here: Path) -> None:
    (here / name).write_text("mine\n")
    done = init()
    assert done.exit_code == 2
    assert f"{name}: expected no such file, got one; name another folder, or move it away" in done.output
    assert {path.name for path in here.iterdir()} == {name, "my tests.csv"}
    assert (here / name).read_text() == "mine\n"


def test_a_folder_that_cannot_be_written_is_told(here: Path) -> None:
    (here / "lab").write_text("a file")
    done = init("lab")
    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1
    assert "lab" in done.output


def stages_of(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)["stages"]


@pytest.mark.parametrize("full_at", ["dvc.yaml", ".gitignore"])
def test_a_disk_that_fills_amid_the_files_leaves_none(
    full_at: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "lab").mkdir()
    (here / "lab" / ".gitignore").write_text("mine\n")

    def fills(path: Path, content: bytes) -> None:
        if path.name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_file(path, content)

    monkeypatch.setattr("flows.init.write_file", fills)
    done = init("lab")
    assert done.exit_code == 2
    assert done.stderr == "surrogate: lab: expected a folder that can be written, got No space left on device\n"
    assert [path.name for path in (here / "lab").iterdir()] == [".gitignore"]
    assert (here / "lab" / ".gitignore").read_text() == "mine\n"


def test_dvc_yaml_of_this_project_is_made_of_the_same_template() -> None:
    code = ["surrogate_core", "tasks", "requirements.lock"]
    assert (ROOT / "dvc.yaml").read_text() == dvc_yaml('"$DVC_ROOT/.venv/bin/python" -m flows', code, "source")


@pytest.mark.parametrize("kind", ["function", "command", "data"])
def test_dvc_yaml_lists_what_the_stages_read_and_write(kind: str, here: Path) -> None:
    files = workspace_files(
        here / "lab", Wish(kind, here / "my tests.csv" if kind == "data" else None, "load", ("x", "kind"))
    )
    stages = stages_of(files["dvc.yaml"].decode())
    assert list(stages) == list(STAGES)
    for name, stage in STAGES.items():
        box = ["${problem.data}" if kind == "data" else "${problem.source}"] * stage.calls_black_box
        assert stages[name]["deps"] == ["requirements.txt", *box, *stage.deps]
        assert stages[name]["params"] == list(stage.params)
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in
                [*stages[name].get("outs", []), *stages[name].get("metrics", [])]]  # fmt: skip
        assert sorted(outs) == sorted(stage.outs)
        assert stages[name]["cmd"] == f"{COMMAND} {name}"
