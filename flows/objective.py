"""`surrogate tune --objective`: a study as a person sees it, and as MLflow is told of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flows.command import Busy, only_errors
from flows.view import Lines
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.watch import Progress as StudyProgress
from tasks.objective import ObjectiveStudy
from tasks.tracking.study import StudyRun

SHOWN = 5  # parameters whose importance is told


def tune_objective(
    root: Path, target: str, settings: Path, overrides: Sequence[str], console: Console
) -> dict[str, Any]:
    """Tunes a function of one's own, and says what was found, and where it is.

    Raises:
        BadInput: something in the settings is not as expected, or there is no such function.
        Busy: another process works on the same study.
        StageFailed: all trials failed.
    """
    study = ObjectiveStudy.of(root, target, settings, overrides)
    only_errors()
    with _alone(study):
        console.print(f"space     {study.about}", highlight=False, markup=False, soft_wrap=True)
        run = StudyRun(root, f"tune {target}", {"objective": target, "tune": asdict(study.tune)}, study.spec.sign)
        status, began = "FAILED", time.monotonic()
        try:
            with _shown(console, study.spec.n_trials) as show:

                def tell(trial: Trial, how: StudyProgress) -> None:
                    run.add(trial.number, study.row(trial)["value"], trial.status)
                    show(how)

                def warn(line: str) -> None:
                    console.print(f"warning   {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)

                result = study.run(tell, warn, root)
            told, files = study.write(result)
            names = ("n_trials", "n_failed", "n_pruned", "n_duplicates", "duplicate_ratio", "degenerate_ratio")
            metrics = {name: float(told[name]) for name in names} | {"best": told["best"]["value"]}
            metrics |= {f"importance.{name}": share for name, share in told["importance"].items()}
            run.publish(told["trials"], metrics, files)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run.end(status)
    seconds = time.monotonic() - began
    del told["trials"]  # which are in study.json
    return {**told, "seconds": seconds, "folder": str(study.folder), "mlflow_run": run.run_id, "notes": run.trouble}


def tell(console: Console, told: Mapping[str, Any]) -> None:
    """Prints what was found."""
    best, n = told["best"], told["n_trials"]
    counts = [f"{told[f'n_{what}']} {what}" for what in ("failed", "pruned") if told[f"n_{what}"]]
    counts += [f"{told['n_duplicates']} proposals answered without a call"] if told["n_duplicates"] else []
    why = {
        "done": "",
        "exhausted": "; no design was left",
        "patience": "; stopped, as none was better for tune.patience trials",
        "time_budget": "; stopped by tune.time_budget",
    }[told["stopped"]]
    explained = [f"{name} {share:.0%}" for name, share in list(told["importance"].items())[:SHOWN]]
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, value in (
        ("best", f"[bold]{best['value']:.6g}[/bold], trial {best['number'] + 1}"),
        ("design", escape(", ".join(f"{name} {_said(value)}" for name, value in best["params"].items()))),
        ("trials", ", ".join([str(n), *counts]) + f", in {told['seconds']:.1f} s{why}"),
        ("explained", escape(", ".join(explained))),
        ("seed", "" if told["reproducible"] else "does not fix this study: it was asynchronous, shared or cut short"),
    ):
        if value:
            table.add_row(name, value)
    console.print()
    console.print(table)
    console.print()
    print_plain = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    journal = ", trials.jsonl" if (Path(told["folder"]) / "trials.jsonl").exists() else ""  # else a database has them
    print_plain(f"files     {told['folder']}: study.json{journal} and pictures")
    print_plain(f"MLflow    run {told['mlflow_run']}: surrogate ui")
    for note in told["notes"]:
        print_plain(f"note      {note}")


@contextmanager
def _alone(study: ObjectiveStudy) -> Iterator[None]:
    """Holds the study's folder; where a database keeps it others may join."""
    if study.tune.kept_at(study.folder.name) is not None:
        yield
        return
    study.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(study.folder / "study.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(
            f"{study.folder}: another process works on this study; wait for it, or let them share it by tune.storage"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _shown(console: Console, n_trials: int) -> Iterator[Callable[[StudyProgress], None]]:
    """Shows how a study is getting on: a bar on a terminal, else a line now and then."""
    if console.is_terminal and not console.quiet:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("trials", total=n_trials)
            yield lambda how: bar.update(task, completed=how.n_told, total=how.n_trials, description=_how(how))
        return
    lines = Lines(console)
    lines.begin("tune")
    yield lambda how: lines.progress(how.n_told, how.n_trials, _how(how))


def _how(how: StudyProgress) -> str:
    told = f"trials, the best {how.best:.6g}"
    for share, what in ((how.duplicate_ratio, "of proposals had been tried"), (how.degenerate_ratio, "taught nothing")):
        told += f", {share:.0%} {what}" if share else ""
    return told


def _said(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if number else str(value)
