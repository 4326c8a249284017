"""Files, folders and keys: written whole or not at all, found or told, and known by all that they depend on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surrogate_core.atomic import TEMPORARY, write_file
from tasks.errors import BadInput, StageFailed, UserError
from tasks.inputs import Inputs, code_digest
from tasks.keys import STAGES, Stage, stage_key
from tasks.settings import load_settings
from tasks.workspace import Workspace, anchor, check_writable, drop_oldest, git_revision, home_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def outside_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)


def workspace(root: Path, *overrides: str, foreign: bool = False) -> Workspace:
    settings = load_settings(ROOT / "params.yaml", ["problem.source=box.py", *overrides])
    return Workspace.of(root, settings, foreign=foreign)


def filled(root: Path) -> Workspace:
    """A project with a black box, a lock file and every file that a stage may read."""
    (root / "box.py").write_text("def f(**params): return 1.0\n")
    (root / "requirements.lock").write_text("jax==0.9.2\n")
    made = workspace(root)
    for path in {path for stage in STAGES.values() for path in stage.deps}:
        place = made.out / path
        if place.suffix:
            write_file(place, f"content of {path}".encode())
        else:
            write_file(place / "model.json", b"{}")
            write_file(place / "model.safetensors", b"arrays")
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Files


def test_a_file_is_written_and_its_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c.txt"
    write_file(target, b"one")
    write_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert names(tmp_path) == ["a/b/c.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_breaks_off_leaves_what_was_there(
    broken: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "c.txt"
    write_file(target, b"before")

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(type(error)):
        write_file(target, b"after")
    assert target.read_bytes() == b"before"
    assert names(tmp_path) == ["c.txt"]


def test_what_is_written_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("fsync", "replace"):
        true = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, true=true, **k: (order.append(name), true(*a, **k)))
    write_file(tmp_path / "c.txt", b"content")
    assert order[:2] == ["fsync", "replace"]


# The workspace


def test_outputs_are_in_the_project_or_for_foreign_settings_below_runs(tmp_path: Path) -> None:
    own, foreign = workspace(tmp_path), workspace(tmp_path, "collect.seed=5", foreign=True)
    assert own.out == own.root == tmp_path
    assert foreign.root == tmp_path
    assert foreign.out == tmp_path / "runs" / foreign.settings.digest[:12]
    assert foreign.out != workspace(tmp_path, "collect.seed=6", foreign=True).out
    assert foreign.out == workspace(tmp_path, "collect.seed=5", "execution.n_workers=1", foreign=True).out
    assert own.home == foreign.home == tmp_path / ".surrogate"
    for place in (own.results, own.journal("collect", "0a"), own.journal("tune", "0a")):
        assert place.is_relative_to(own.home)
    assert own.journal("collect", "0a") != own.journal("tune", "0a") != own.journal("tune", "0b")


def test_a_copy_in_which_dvc_works_shares_the_home_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tmp" / "copy"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert workspace(copy).home == tmp_path / ".surrogate"
    assert workspace(copy).out == copy
    assert anchor(copy) == tmp_path
    assert home_of(copy) == tmp_path / ".surrogate"


def test_a_stage_that_is_finished_leaves_its_key_and_no_journal(tmp_path: Path) -> None:
    here = workspace(tmp_path)
    assert here.last_key("collect") is None
    write_file(here.journal("collect", "0a"), b"")
    write_file(here.journal("collect", "0b"), b"")
    here.finish("collect", "0a")
    here.finish("fit", "0c")  # it had no journal
    assert (here.last_key("collect"), here.last_key("fit"), here.last_key("tune")) == ("0a", "0c", None)
    assert [path.name for path in (here.home / "journal").iterdir()] == ["collect-0b.jsonl"]


def test_foreign_settings_do_not_change_the_key_of_the_projects_own_files(tmp_path: Path) -> None:
    workspace(tmp_path).finish("collect", "0a")
    workspace(tmp_path, "collect.seed=5", foreign=True).finish("collect", "0b")
    assert workspace(tmp_path).last_key("collect") == "0a"


def test_what_was_written_is_read_again_by_path(tmp_path: Path) -> None:
    files = {"data/model/a.json": b"{}", "data/model/b.bin": b"\x00", "data/report.json": b"[]"}
    here = workspace(tmp_path, foreign=True)
    here.write(files, ["data/model", "data/report.json"])
    assert here.read(["data/model", "data/report.json"]) == files
    assert here.read(["data/report.json"]) == {"data/report.json": b"[]"}
    assert here.read([]) == {}
    assert names(here.out) == sorted(files)


def test_a_file_that_is_already_the_same_is_left_alone(tmp_path: Path) -> None:
    here = workspace(tmp_path)
    files = {"data/model/a.json": b"{}", "data/model/b.bin": b"\x00"}
    here.write(files, ["data/model"])
    for path in files:
        os.utime(tmp_path / path, ns=(1, 1))
    inodes = {path: (tmp_path / path).stat().st_ino for path in files}
    here.write({**files, "data/model/b.bin": b"\x01"}, ["data/model"])
    unchanged, changed = (tmp_path / path for path in files)
    assert unchanged.stat().st_mtime_ns == 1
    assert unchanged.stat().st_ino == inodes["data/model/a.json"]
    assert changed.stat().st_mtime_ns != 1
    assert changed.read_bytes() == b"\x01"


def test_what_is_no_output_any_more_goes_and_nothing_else(tmp_path: Path) -> None:
    here = workspace(tmp_path)
    here.write({"data/model/a.json": b"{}", "data/model/old.bin": b"\x00", "data/report.json": b"[]"}, ["data/model"])
    (tmp_path / "data" / "model" / f"{TEMPORARY}killed").write_bytes(b"half of it")
    (tmp_path / "data" / "mine.txt").write_text("my own")
    here.write({"data/model/a.json": b"{}"}, ["data/model"])
    assert names(tmp_path) == ["data/mine.txt", "data/model/a.json", "data/report.json"]


def test_a_folder_within_an_output_folder_goes_too(tmp_path: Path) -> None:
    """An editor's or a file manager's leavings, such as .ipynb_checkpoints."""
    here = workspace(tmp_path)
    (tmp_path / "data" / "model" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "data" / "model" / ".ipynb_checkpoints" / "a.json").write_text("{}")
    here.write({"data/model/a.json": b"{}"}, ["data/model"])
    assert names(tmp_path) == ["data/model/a.json"]
    assert here.read(["data/model"]) == {"data/model/a.json": b"{}"}


@pytest.mark.parametrize("path", ["data/dataset.parquet", "data/model"])
def test_a_file_that_is_missing_is_one_error_that_says_what_to_do(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected the output of an earlier stage, got No such file") as raised:
        workspace(tmp_path).read([path])
    assert str(tmp_path / path) in str(raised.value)
    assert str(raised.value).endswith("run that first")
    assert "\n" not in str(raised.value)


def test_an_empty_output_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "data" / "model").mkdir(parents=True)
    with pytest.raises(BadInput, match="data/model: expected the output of an earlier stage"):
        workspace(tmp_path).read(["data/model"])


def test_what_can_be_written_is_checked_and_left_as_it_was(tmp_path: Path) -> None:
    here = workspace(tmp_path, foreign=True)
    check_writable(here.out, here.home)
    check_writable(here.out, here.home)
    assert here.out.is_dir()
    assert here.home.is_dir()
    assert not names(tmp_path)


@pytest.mark.parametrize("place", [".surrogate", "runs"])
def test_a_folder_that_cannot_be_written_is_told_before_any_work(place: str, tmp_path: Path) -> None:
    (tmp_path / place).write_text("a file in the place of the folder")
    here = workspace(tmp_path, foreign=True)
    with pytest.raises(BadInput, match="expected a folder that can be written, got ") as raised:
        check_writable(here.out, here.home)
    assert str(tmp_path / place) in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="got Permission denied"):
            check_writable(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_errors_that_a_user_can_mend_have_an_exit_status() -> None:
    assert issubclass(BadInput, UserError)
    assert issubclass(BadInput, ValueError)
    assert (BadInput.exit_status, StageFailed.exit_status) == (2, 1)


def test_a_revision_is_that_of_git_and_says_whether_files_differ(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == ""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    (tmp_path / "a.txt").write_text("a")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    clean = git_revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a.txt").write_text("b")
    assert git_revision(tmp_path) == f"{clean}-dirty"


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) == ""


# Keys


def keys(made: Workspace) -> dict[str, str]:
    return {name: stage_key(stage, made) for name, stage in STAGES.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


CALLING = {name for name, stage in STAGES.items() if stage.calls_black_box}


def test_a_key_is_a_digest_and_stages_have_their_own(tmp_path: Path) -> None:
    found = keys(filled(tmp_path))
    assert found == keys(filled(tmp_path))
    assert len(set(found.values())) == len(STAGES)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in found.values())


def test_a_key_does_not_depend_on_where_the_project_is(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    assert keys(filled(tmp_path / "here")) == keys(filled(tmp_path / "there"))


@pytest.mark.parametrize("path", sorted({path for stage in STAGES.values() for path in stage.deps}))
def test_a_key_changes_with_the_content_of_each_file_that_is_read(path: str, tmp_path: Path) -> None:
    before = keys(filled(tmp_path))
    place = tmp_path / path
    file = place if place.is_file() else place / "model.json"
    file.write_bytes(file.read_bytes() + b" ")
    reading = {name for name, stage in STAGES.items() if path in stage.deps}
    assert changed(before, keys(workspace(tmp_path))) == reading
    if place.is_dir():
        file.write_bytes(b"{}")
        (place / "model.json").rename(place / "renamed.json")
        assert changed(before, keys(workspace(tmp_path))) == reading


def reading(parameter: str) -> set[str]:
    return {
        name
        for name, stage in STAGES.items()
        if any(parameter == path or parameter.startswith(f"{path}.") for path in stage.params)
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("problem.function=box:g", reading("problem.function")),
        ("problem.direction=maximize", reading("problem.direction")),
        ("problem.space.sio2_outer.low=6", reading("problem.space")),
        ("problem.timeout=61", reading("problem.timeout")),
        ("problem.version=2", CALLING),
        ("collect.seed=9", {"collect"}),
        ("collect.n_samples=65", {"collect"}),
        ("fit.seed=9", {"fit"}),
        ("fit.surrogate.kernel=rbf", {"fit"}),
        ("validate.seed=9", {"validate", "tune"}),
        ("gates.min_r2=0.125", {"validate", "tune"}),
        ("gates.min_coverage_95=0.125", {"validate", "tune"}),
        ("gates.max_rmse=0.125", {"validate", "tune"}),
        ("gates.on_fail=stop", {"validate", "optimize", "tune"}),
        ("gates.trust=supported", {"validate", "tune"}),
        ("optimize.seed=9", {"optimize", "tune"}),
        ("tune.seed=9", {"tune"}),
        ("tune.space.gaussian_process.kernel=[rbf]", {"tune"}),
        ("execution.n_workers=1", set()),
        ("execution.cache_mb=1", set()),
    ],
)
def test_a_key_changes_with_the_parameters_that_the_stage_reads_alone(
    override: str, expected: set[str], tmp_path: Path
) -> None:
    before = keys(filled(tmp_path))
    assert changed(before, keys(workspace(tmp_path, override))) == expected


def test_the_executor_changes_no_key(tmp_path: Path) -> None:
    filled(tmp_path)
    one, other = (
        keys(workspace(tmp_path, "problem.timeout=null", f"execution.executor={executor}"))
        for executor in ("processes", "serial")
    )
    assert one == other


@pytest.mark.parametrize("path", ["problem.space", "tune.space.gaussian_process"])
def test_a_key_changes_with_the_order_within_a_space(path: str, tmp_path: Path) -> None:
    """Columns of a Sobol sequence go to variables in their order, and the sampler of specs draws in it."""
    before = keys(filled(tmp_path))
    made = workspace(tmp_path)
    values = made.settings.problem.space if path == "problem.space" else made.settings.tune.space["gaussian_process"]
    turned = ", ".join(f"{name}: {value}" for name, value in reversed(values.items()))
    after = keys(workspace(tmp_path, f"{path}={{{turned}}}"))
    assert changed(before, after) == reading(".".join(path.split(".")[:2]))


def edit_black_box(root: Path, _: pytest.MonkeyPatch) -> None:
    (root / "box.py").write_text("def f(**params): return 2.0\n")


def edit_lock(root: Path, _: pytest.MonkeyPatch) -> None:
    (root / "requirements.lock").write_text("jax==0.9.3\n")


def another_machine(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.keys.machine", lambda: {"architecture": "another"})


def edit_package(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def edit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copy = root / "elsewhere" / name
        shutil.copytree(ROOT / name, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(f"tasks.inputs.{name}", SimpleNamespace(__path__=[str(copy)]))
        unchanged = code_digest(root)
        (copy / "__pycache__").mkdir()
        (copy / "__pycache__" / "space.cpython-311.pyc").write_bytes(b"compiled")
        assert code_digest(root) == unchanged
        with (copy / "__init__.py").open("a") as file:
            file.write("# edited\n")

    return edit


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit_black_box, CALLING),
        (edit_lock, set(STAGES)),
        (another_machine, set(STAGES)),
        (edit_package("surrogate_core"), set(STAGES)),
        (edit_package("tasks"), set(STAGES)),
    ],
    ids=["black box", "lock file", "machine", "surrogate_core", "tasks"],
)
def test_a_key_changes_with_the_code_and_the_machine(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    expected: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = keys(filled(tmp_path))
    change(tmp_path, monkeypatch)
    assert changed(before, keys(workspace(tmp_path))) == expected


def test_a_package_that_is_copied_unchanged_has_the_same_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_digest(tmp_path)
    copy = tmp_path / "elsewhere" / "tasks"
    shutil.copytree(ROOT / "tasks", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("tasks.inputs.tasks", SimpleNamespace(__path__=[str(copy)]))
    assert code_digest(tmp_path) == before


def test_without_a_lock_file_the_versions_of_the_libraries_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_digest(tmp_path)
    monkeypatch.setattr("tasks.inputs.version", lambda name: "0.0.1")
    assert code_digest(tmp_path) != before


def test_a_black_box_that_is_not_there_is_told_by_its_field(tmp_path: Path) -> None:
    here = workspace(tmp_path, "problem.source=nowhere.py")
    with pytest.raises(BadInput, match=r"problem\.source: expected a file or folder below .*, got 'nowhere.py'"):
        _ = here.black_box
    with pytest.raises(BadInput, match=r"problem\.source"):
        stage_key(STAGES["collect"], here)


def test_a_source_that_holds_what_runs_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"problem\.source: expected .* a folder of its own, got '\.', where runs"):
        _ = workspace(tmp_path, "problem.source=.").black_box


def test_a_function_that_is_a_constraint_belongs_to_the_black_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    limit = tmp_path / "limits_of_test_workspace.py"
    filled(tmp_path)
    limit.write_text("def met(x, y): return x - 1")
    before = workspace(tmp_path, f"problem.constraints=[{limit.stem}:met]").black_box
    limit.write_text("def met(x, y): return x - 2")
    assert workspace(tmp_path, f"problem.constraints=[{limit.stem}:met]").black_box != before
    with pytest.raises(BadInput, match=r"problem\.constraints\[0\]: expected package\.module:name below"):
        _ = workspace(tmp_path, "problem.constraints=[no_such_module:met]").black_box


def test_a_stage_that_calls_no_black_box_needs_none(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "box.py").unlink()
    assert stage_key(STAGES["fit"], workspace(tmp_path))


def test_a_key_needs_the_files_that_are_read(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "data" / "dataset.parquet").unlink()
    with pytest.raises(BadInput, match=r"dataset\.parquet: expected the output of an earlier stage"):
        stage_key(STAGES["fit"], workspace(tmp_path))


def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(["c", "a/b", "a/d"]):
        write_file(tmp_path / name, b"1234")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    drop_oldest(tmp_path, 12)
    assert names(tmp_path) == ["a/b", "a/d", "c"]
    drop_oldest(tmp_path, 7)
    assert names(tmp_path) == ["a/d"]
    drop_oldest(tmp_path / "nowhere", 0)


# What a run starts from


def test_a_key_is_of_what_the_run_started_from(tmp_path: Path) -> None:
    made = filled(tmp_path)
    before = keys(made)
    edit_black_box(tmp_path, pytest.MonkeyPatch())
    edit_lock(tmp_path, pytest.MonkeyPatch())
    assert keys(made) == before
    assert changed(before, keys(workspace(tmp_path))) == set(STAGES)


@pytest.mark.parametrize(
    ("path", "said", "concerns_results"),
    [
        ("requirements.lock", "the library's source or its lock file", True),
        ("box.py", "the source of problem.function", True),
        ("params.yaml", "params.yaml or dvc.yaml", False),
        ("dvc.yaml", "params.yaml or dvc.yaml", False),
    ],
)
def test_an_edit_while_a_run_works_is_found(path: str, said: str, concerns_results: bool, tmp_path: Path) -> None:
    filled(tmp_path)
    made = workspace(tmp_path)
    _ = made.black_box
    assert made.edited(pipeline=True) == made.edited(pipeline=False) == ""
    write_file(tmp_path / path, b"# edited\n")
    assert made.edited(pipeline=True) == said
    assert made.edited(pipeline=False) == (said if concerns_results else "")


def test_a_black_box_that_is_removed_while_a_run_works_is_an_edit(tmp_path: Path) -> None:
    made = filled(tmp_path)
    _ = made.black_box
    (tmp_path / "box.py").unlink()
    assert made.edited(pipeline=False) == "the source of problem.function"


def test_inputs_need_no_files(tmp_path: Path) -> None:
    assert Inputs.now(tmp_path) == Inputs.now(tmp_path)


def test_a_stage_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        STAGES["fit"].params = ()  # type: ignore[misc]
    assert Stage("x", (), (), ()).calls_black_box is False
