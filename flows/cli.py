"""The command line. Exit status 0 only when the work was done, 1 when it failed, 2 for bad input; 130 after Ctrl-C.

Little is imported before a command is known: help is instant, and the Prefect server starts while the rest loads.
"""

import gc
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from flows.command import (
    INTERRUPTED,
    ServerGone,
    check,
    interruptible,
    leave,
    only_errors,
    open_workspace,
    prepare,
    project,
    quiet,
    room_needed,
    settings_file,
    starting,
    take_stdout,
)
from tasks.errors import BadInput, UserError

STAGE_HELP = {
    "collect": "Evaluate the black box at the points of a sampling design.",
    "fit": "Fit the champion surrogate to the dataset.",
    "validate": "Cross-validate the surrogate and judge it by the gates.",
    "optimize": "Follow the surrogate's gradient to better designs, in rounds.",
    "tune": "Search surrogate specs for a challenger, and recommend a design.",
}

EXAMPLES = """
\b
Examples:
  surrogate run                             the whole pipeline, in this folder
  surrogate run -S collect.n_samples=128    with other settings, into runs/DIGEST
  surrogate run -S problem.name=borehole    a problem of the library
  surrogate run --json                      the result as JSON, for programs
  surrogate fit                             one stage, as `dvc repro` runs it
  surrogate tune --promote                  let the challenger take the champion's place
  surrogate tune --objective train:loss     tune a function of your own
  surrogate serve --cron "0 6 * * *"        every morning at six
  surrogate report                          one HTML page of the last run
  surrogate ui                              compare runs in MLflow
  surrogate doctor                          what is wrong here, and how to mend it
  surrogate profile -- run                  where the time of a run goes
  surrogate bench --quick                   what is required of this software, and what is reached here
"""


class _InOrder(click.Group):
    """Lists commands in the order they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="surrogate-lab")
def cli() -> None:
    """Optimize an expensive function that has no gradient, through a surrogate that has one.

    Works in the current folder, which holds params.yaml.
    """


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
    return as_json(_settings_options(command))


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "-S", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as fit.seed=1."
        ),
        click.option("--params", metavar="FILE", help="Another settings file than params.yaml."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("folder", default=".", metavar="[FOLDER]")
@click.option("--command", "program", is_flag=True, help="For a program that reads and writes JSON, not a function.")
@click.option("--data", metavar="FILE", help="For a table of evaluations, CSV or parquet, which is copied.")
@click.option("--output", metavar="COLUMN", help="The column of the table to optimize.")
@click.option("--inputs", metavar="A,B,...", help="Its columns that are variables, if not all others.")
@click.option("--maximize", is_flag=True, help="Greater values of that column are better.")
@click.option("--git/--no-git", default=True, show_default=True, help="Make a git repository, unless there is one.")
@click.option("--dvc/--no-dvc", default=True, show_default=True, help="Version data and parameters by DVC.")
def init(folder: str, program: bool, data: str | None, git: bool, dvc: bool, **table: Any) -> None:
    """Make a folder for a problem of your own: settings, a file to fill in, versioning.

    \b
    Examples:
      surrogate init lab                                       a function in lab/problem.py
      surrogate init lab --command                             a program, in any language
      surrogate init lab --data tests.csv --output strength    a table that you have
    """
    with _one_line_errors():
        if program and data:
            raise BadInput("--command: expected only one of --command and --data, got both")
        if misplaced := [f"--{name}" for name, value in table.items() if value and not data]:
            raise BadInput(f"{misplaced[0]}: expected only with --data, got none")
        from flows.init import Wish, make_workspace

        kind = "data" if data else "command" if program else "function"
        inputs = tuple(filter(None, (table["inputs"] or "").split(",")))
        asked = {"output": table["output"] or "", "inputs": inputs, "maximize": table["maximize"]}
        wish = Wish(kind, Path(data) if data else None, **asked, git=git, dvc=dvc)
        for word, line in make_workspace(Path(folder), wish):
            click.echo(f"{word:<5} {line}")
    there = "" if Path(folder).resolve() == Path.cwd() else f"cd {shlex.quote(folder)}, "
    click.echo(f"next  {there}look at params.yaml, then: surrogate run")


@cli.command(epilog=EXAMPLES)
@_run_options
def run(params: str | None, overrides: Sequence[str], as_json: bool) -> None:
    """Run the whole pipeline: collect, fit, validate, optimize, tune.

    What is already known comes from the cache; a run that was killed goes on where it was. With -S or --params the
    outputs go to runs/DIGEST and are not versioned.
    """
    _stages(tuple(STAGE_HELP), params, overrides, as_json)


def _add_stage(name: str) -> None:
    @cli.command(name, help=STAGE_HELP[name])
    @_run_options
    def stage(params: str | None, overrides: Sequence[str], as_json: bool) -> None:
        _stages((name,), params, overrides, as_json)


for _name in ("collect", "fit", "validate", "optimize"):
    _add_stage(_name)


TUNE_EXAMPLES = """
\b
Examples:
  surrogate tune                                        surrogate specs, as the pipeline's last stage
  surrogate tune --promote                              and let a better one take the champion's place
  surrogate tune --objective train:loss                 a function of your own, over tune.space
  surrogate tune --objective train:loss --params search.yaml -S tune.n_trials=2000
"""


@cli.command(epilog=TUNE_EXAMPLES)
@_run_options
@click.option(
    "--promote", is_flag=True, help="If the challenger is better, write it to params.yaml and move @champion."
)
@click.option(
    "--objective", metavar="MODULE:FUNCTION", help="Search the designs of tune.space for the best value of a function."
)
def tune(params: str | None, overrides: Sequence[str], as_json: bool, promote: bool, objective: str | None) -> None:
    """Search surrogate specs for a challenger, and recommend a design.

    Or, with --objective, tune a function of your own, called with a design's values as keywords, or as one dict. Of the
    settings only `tune` and `execution` count then; trials, report and pictures are in runs/tune. After Ctrl-C, or a
    kill, the same command goes on.
    """
    if objective is not None:
        if promote:
            raise click.UsageError("--promote: expected surrogate specs to be tuned, got --objective")
        _tune_objective(objective, params, overrides, as_json)
        return
    _stages(("tune",), params, overrides, as_json, promoting=promote)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def problems(as_json: bool) -> None:
    """List the problems of the library, to try things on: surrogate run -S problem.name=borehole."""
    from surrogate_core.problems.library import PROBLEMS

    made = [make() for make in PROBLEMS.values()]
    if as_json:
        told = [{"name": p.name, **p.space.to_config(), "minimizer": p.minimizer, "minimum": p.minimum} for p in made]
        click.echo(_json([{**one, "source": p.source} for one, p in zip(told, made, strict=True)]))
        return
    for problem, make in zip(made, PROBLEMS.values(), strict=True):
        about = (make.__doc__ or "").strip().splitlines()[0]
        bound = f", {len(problem.space.constraints)} constraints" if problem.space.constraints else ""
        click.echo(f"{problem.name:<16} {problem.space.n_dims:>2} variables{bound}, minimum {problem.minimum:g}")
        click.echo(f"{'':<16} {about}")
    click.echo("\nsurrogate run -S problem.name=NAME runs one; with -S problem.shift=SEED in a box cut anew")


@cli.command()
@_run_options
@click.option("-o", "target", metavar="FILE", type=Path, help="Where to write it, in place of runs/report.html.")
def report(params: str | None, overrides: Sequence[str], as_json: bool, target: Path | None) -> None:
    """Write one HTML page of the last run, to read or send; it needs no network.

    With -S or --params it is of the outputs in runs/DIGEST.
    """
    with _one_line_errors():
        root = Path.cwd()
        settings_file(root, params)  # before anything is written
        quiet(root)
        from flows.page import write_page
        from tasks.inputs import Inputs

        place = write_page(open_workspace(root, params, overrides, Inputs.now(root)), target)
    click.echo(_json({"page": str(place), "url": place.as_uri()}) if as_json else place.as_uri())


@cli.group()
def cache() -> None:
    """What is kept to spare work: results of stages, and compiled code."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def stats(as_json: bool) -> None:
    """Say how many results there are, of which stages, and how large, and what else is kept."""
    root = Path.cwd()
    with _one_line_errors():
        quiet(root)
        from tasks.records import cache_stats
        from tasks.settings import load_settings
        from tasks.workspace import home_of

        limit = load_settings(root / "params.yaml").execution.cache_mb
        told = cache_stats(home_of(root), int(limit * 1e6))
    if as_json:
        click.echo(_json(told))
        return
    stages = ", ".join(f"{count} {stage}" for stage, count in told["stages"].items()) or "none"
    click.echo(f"results      {told['entries']} ({stages}), {told['bytes'] / 1e6:.1f} of {told['limit'] / 1e6:.0f} MB")
    click.echo(f"compiled     {told['compiled_bytes'] / 1e6:.1f} of {told['compiled_limit'] / 1e6:.0f} MB")
    click.echo(f"checkpoints  {told['journals']} of stages that have not ended")


@cache.command()
@click.option("--checkpoints", is_flag=True, help="Also the evaluations that killed runs would go on from.")
def clear(checkpoints: bool) -> None:
    """Remove all results and compiled code; the next run makes them again."""
    with _one_line_errors(), project(Path.cwd(), None) as root:
        from tasks.records import clear_cache
        from tasks.workspace import home_of

        told = clear_cache(home_of(root), checkpoints=checkpoints)
        click.echo(f"{told['results']} results removed" + (f", {told['journals']} checkpoints" if checkpoints else ""))


@cli.command()
@click.option("--port", default=5000, show_default=True, help="Port on the loopback address.")
def ui(port: int) -> None:
    """Serve MLflow's pages of all runs, and Prefect's, until Ctrl-C."""
    with _one_line_errors():
        quiet(Path.cwd())
        from flows.ui import serve_pages

        serve_pages(Path.cwd(), port, click.echo)


SERVE_EXAMPLES = """
\b
Examples:
  surrogate serve --cron "0 6 * * *"              every morning at six
  surrogate serve --interval 3600 -S fit.seed=1   every hour with other settings, into runs/DIGEST
"""


@cli.command(epilog=SERVE_EXAMPLES)
@click.option("--cron", metavar="EXPRESSION", help="When to run: minute, hour, day, month and weekday.")
@click.option("--interval", type=float, metavar="SECONDS", help="How often to run, first one interval from now.")
@click.option("--timezone", metavar="NAME", help="Where --cron's clock is, such as Europe/Berlin.  [default: here]")
@click.option("--name", help="Of the deployment on Prefect's pages.  [default: from the folder]")
@_settings_options
def serve(
    cron: str | None,
    interval: float | None,
    timezone: str | None,
    name: str | None,
    params: str | None,
    overrides: Sequence[str],
) -> None:
    """Run the whole pipeline on a schedule, until Ctrl-C.

    At most one run works at a time; one that is due meanwhile, or late, is skipped. A run that was killed is marked as
    crashed, and the next one goes on where it was.
    """
    with _one_line_errors():
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 140)
        starting = console.status("starting Prefect and the libraries")

        def tell(what: str, line: str) -> None:
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {what:<11} {line}")

        def ready(page: str) -> None:
            starting.stop()
            click.echo(f"serving   {f'cron {cron}' if cron else f'every {interval:g} s'}{f' ({zone})' if zone else ''}")
            click.echo(f"project   {root}\npage      {page}")
            click.echo("Ctrl-C ends it; what a run has evaluated is kept")

        root = Path.cwd()
        with starting:
            prepare(root, params)
            from flows import serve as serving
            from tasks.inputs import Inputs
            from tasks.workspace import check_writable

            plan = serving.schedule(cron, interval, timezone)
            zone = plan.timezone
            with serving.only_server(root):
                workspace = open_workspace(root, params, overrides, Inputs.now(root))
                check_writable(workspace.out, workspace.out / "data")
                check(workspace, STAGE_HELP)
                only_errors()
                serving.serve(root, serving.deployment(root, name, plan, params, overrides), tell, ready)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of findings and nothing else.")
def doctor(as_json: bool) -> None:
    """Find what is wrong here, and say how to mend it.

    Looks at versions, machine, telemetry, servers, stores, locks, killed runs, settings and cache; starts and changes
    nothing. Exit status 1 if something fails; a warning is no failure.
    """
    with _one_line_errors():
        from flows.doctor import examine, summary, told

        findings, width = [], min(shutil.get_terminal_size((140, 24)).columns, 120)
        for finding in examine(Path.cwd()):
            findings.append(finding)
            if not as_json:
                click.echo(told(finding, width))
        click.echo(_json(findings) if as_json else f"\n{summary(findings)}")
    sys.exit(1 if any(finding.verdict == "fail" for finding in findings) else 0)


PROFILE_EXAMPLES = """
\b
Examples:
  surrogate profile -- run -S fit.seed=1     where the time of a run goes
  surrogate profile --level detailed -- fit  the same of a stage, without a watch on functions, which slows Python
"""


@cli.command(epilog=PROFILE_EXAMPLES, context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARGS]...")
@click.option(
    "--level",
    type=click.Choice(["basic", "detailed", "full"]),
    default="full",
    show_default=True,
    help="Times; and memory over time; and Python's functions.",
)
@click.option(
    "-o", "target", metavar="FILE", type=Path, help="The page, in place of runs/profiles/surrogate-COMMAND.html."
)
@click.option("--open", "is_shown", is_flag=True, help="Open the page in the browser.")
def profile(command: Sequence[str], level: Any, target: Path | None, is_shown: bool) -> None:
    """Run another command, and write a page of where its time and memory went.

    Beside the page are files for speedscope and for programs. What is served from the cache takes no time: settings
    that have not been used, such as -S fit.seed=1, have the work done.
    """
    if target is not None and target.suffix != ".html":
        raise click.UsageError(f"-o: expected a file that ends with .html, got {target}")
    from flows import profiling

    status, profiler = profiling.profile(
        lambda: cli.main(list(command), prog_name="surrogate", standalone_mode=False), command, level
    )
    if status != 2:  # bad input: nothing was done
        with _one_line_errors():
            page = profiling.save(profiler, command[0], target)
            click.echo(f"profile  {page.as_uri()}")
            if is_shown:
                click.launch(page.as_uri())
    sys.exit(status)


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Smaller sizes: minutes in place of hours.")
@click.option("--fresh", is_flag=True, help="Forget the rows of earlier runs.")
def bench(names: Sequence[str], quick: bool, fresh: bool) -> None:
    """Run the benchmarks, and print one table of what is required of them and what was reached on this machine.

    Without names all of them. Rows that are finished are kept: after Ctrl-C the same command goes on.
    """
    with _one_line_errors():
        from flows.profiling import bench as run_benchmarks

        asked = [flag for flag, is_set in (("--quick", quick), ("--fresh", fresh)) if is_set]
        run_benchmarks([*names, *asked])


def main() -> None:
    """The entry point."""
    gc.disable()  # until a command works: collecting amid imports is a fifth of the start
    interruptible()
    cli(prog_name="surrogate")


def _stages(
    stages: Sequence[str], params: str | None, overrides: Sequence[str], as_json: bool, promoting: bool = False
) -> None:
    began = time.perf_counter()
    out = take_stdout() if as_json else sys.stdout
    with _one_line_errors(), room_needed(), project(Path.cwd(), params) as root, ExitStack() as stack:
        from rich.console import Console

        from flows.server import begin
        from surrogate_core.performance.profiler import operation
        from tasks.inputs import Inputs
        from tasks.workspace import check_writable, home_of

        inputs = Inputs.now(root)
        console = Console(quiet=as_json, width=None if sys.stdout.isatty() else 140)  # logs have no width
        with console.status("starting Prefect and the libraries"), operation("start"):
            pending = begin(home_of(root) / "prefect")  # it starts while the rest is imported
            stack.callback(pending.close)
            workspace = open_workspace(root, params, overrides, inputs)
            if promoting and workspace.out != workspace.root:
                raise BadInput("--promote: expected the project's own settings, got -S, --params or SURROGATE_FAST")
            check_writable(workspace.out, workspace.out / "data")

            from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

            from flows.outcome import outcome, tell_outcome
            from flows.pipeline import run_stages
            from flows.server import prefect_server
            from flows.view import Lines, LiveTable, View

            server = stack.enter_context(prefect_server(workspace.home / "prefect", pending))
            # The heartbeat's thread would be joined for a second at the end.
            stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
            only_errors()
        gc.freeze()
        gc.enable()
        ready = time.perf_counter() - began
        view: View = LiveTable(console, tuple(stages)) if console.is_terminal else Lines(console)
        with view:
            session = run_stages(workspace, stages, view)
        if promoting:
            from flows.promotion import promote

            session.notes.append(promote(workspace.root, session.tracker.promote))
        seconds = {"all": time.perf_counter() - began, "until_ready": ready, "waiting_for_server": server.seconds}
        click.echo(_json(outcome(session, seconds)), out) if as_json else tell_outcome(console, session, seconds)


def _tune_objective(objective: str, params: str | None, overrides: Sequence[str], as_json: bool) -> None:
    out = take_stdout() if as_json else sys.stdout
    with _one_line_errors(), room_needed():
        root = Path.cwd()
        with starting():
            from rich.console import Console

            console = Console(quiet=as_json, width=None if sys.stdout.isatty() else 140)
            prepare(root, params)
            with console.status("starting the libraries"):
                from flows.objective import tell, tune_objective
        gc.freeze()
        gc.enable()
        told = tune_objective(root, objective, settings_file(root, params), overrides, console)
        click.echo(_json(told), out) if as_json else tell(console, told)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can mend is one line and an exit status; anything else is a traceback, for it is our mistake."""
    try:
        yield
    except ServerGone as error:
        click.echo(f"surrogate: {error}", err=True)
        leave(error.exit_status)
    except UserError as error:
        _exit(str(error), error.exit_status)
    except KeyboardInterrupt:
        _exit(INTERRUPTED, 130)


def _exit(line: str, status: int) -> None:
    click.echo(f"surrogate: {line}", err=True)
    sys.exit(status)


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
