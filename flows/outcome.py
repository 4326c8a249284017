"""What a run came to, as people and as programs read it."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.pipeline import Session
from tasks.outputs import told_spec
from tasks.reports import is_done, recommendation, told_trust
from tasks.tracking import pictures_folder


def outcome(session: Session, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What `--json` prints.

    Args:
        session: what was run.
        seconds: of `all`, `until_ready` and `waiting_for_server`.
    """
    return {
        "recommendation": _recommendation(session),
        "stages": {stage: {"cache": cache, **asdict(cost)} for stage, (cache, cost) in session.costs.items()},
        "seconds": dict(seconds),
        "outputs": str(session.workspace.out),
        "mlflow_run": session.tracker.run_id,
        "notes": session.notes,
    }


def tell_outcome(console: Console, session: Session, seconds: Mapping[str, float]) -> None:
    """Prints the recommendation, where things are and what took the time; arguments as for `outcome`."""
    tell = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    workspace, final = session.workspace, _recommendation(session)
    if final is not None:
        console.print()
        console.print(summary(final, workspace.settings.problem.known_minimum))
        console.print()
        tell(f"files     {workspace.out / 'data'}, pictures in {pictures_folder(workspace)}")
    tell(f"MLflow    run {session.tracker.run_id}: surrogate ui")
    whole, ready, waited = (seconds[name] for name in ("all", "until_ready", "waiting_for_server"))
    work = sum(cost.wall_s for _, cost in session.costs.values())
    tell(
        f"time      {whole:.1f} s: {work:.1f} s stages, {ready:.1f} s start ({waited:.1f} s of it waiting for the "
        f"Prefect server), {whole - ready - work:.1f} s tracking and versioning"
    )
    for note in session.notes:
        tell(f"note      {note}")


def _recommendation(session: Session) -> dict[str, Any] | None:
    done = "tune" in session.costs and is_done("tune", session.workspace)
    return recommendation(session.workspace) if done else None


def summary(final: Mapping[str, Any], known_minimum: float | None = None) -> Table:
    """The recommendation as a table; a problem of the library knows its minimum."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    promised = "none: the best sample stands"
    if final["promised"] is not None:
        promised = f"{final['promised']:.4g} (95 % interval {final['lower']:.4g} to {final['upper']:.4g})"
    gain = None if final["gain"] is None else f"{final['gain']:.1%} better than the best sample"
    measured = "[yellow]nothing[/yellow]: the design is a prediction from a table; measure it before you trust it"
    if final["measured"] is not None:
        measured = f"[bold]{final['measured']:.4g}[/bold]"
        measured += "" if known_minimum is None else f" (the known minimum is {known_minimum:.4g})"
    told = [f"{final[f'n_{kind}']} {kind}" for kind in ("failed", "infeasible") if final[f"n_{kind}"]]
    for name, value in (
        ("best sample", f"{final['best_sample']['measured']:.4g}"),
        ("promised", promised),
        ("measured", measured),
        ("gain", gain),
        ("trust", _trust(final)),
        ("design", escape(", ".join(f"{name} {_said(value)}" for name, value in final["params"].items()))),
        ("gates", "passed" if final["gates_passed"] else f"[red]FAILED[/red] {', '.join(final['failed_gates'])}"),
        (
            "surrogate",
            told_spec(final) + (" (the challenger)" if final["challenger_is_better"] else " (the champion)"),
        ),
        ("evaluations", ", ".join([str(final["n_evaluations"]), *told])),
    ):
        if value is not None:
            table.add_row(name, value)
    return table


_COLOURS = {"supported": "green", "doubtful": "yellow", "unsupported": "red"}


def _trust(final: Mapping[str, Any]) -> str:
    verdict, _, why = told_trust(final).partition(": ")
    return f"[{_COLOURS[verdict]}]{verdict}[/]: {escape(why)}"


def _said(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if number else str(value)
