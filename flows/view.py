"""What a person sees while stages run: a live table on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from surrogate_core.performance.profiler import Cost
from tasks.reports import Report


class View(Protocol):
    """Told how a run goes. All of its methods may be called from any thread."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, stage: str) -> None: ...

    def progress(self, done: int, total: int, unit: str) -> None: ...

    def end(self, report: Report, cache: str, cost: Cost) -> None: ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, stage: str) -> None:
        pass

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def end(self, report: Report, cache: str, cost: Cost) -> None:
        pass


class Lines(Silent):
    """For logs: a line when a stage ends, and one now and then while it works."""

    EVERY_SECONDS = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._last = 0.0

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, stage: str) -> None:
        self._stage, self._last = stage, time.monotonic()

    def progress(self, done: int, total: int, unit: str) -> None:
        if time.monotonic() - self._last >= self.EVERY_SECONDS:
            self._last = time.monotonic()
            self._print(f"{self._stage:<9} {done} of {total} {unit}")

    def end(self, report: Report, cache: str, cost: Cost) -> None:
        self._print(f"{report.stage:<9} {cost.wall_s:6.1f} s  {_told(cache)}  {report.line}")


class LiveTable(Silent):
    """For a terminal: a row a stage, the working one with a bar, its rate and the time left."""

    def __init__(self, console: Console, stages: tuple[str, ...]) -> None:
        self._console = console
        self._rows: dict[str, tuple[str, str, str]] = dict.fromkeys(stages, ("", "", ""))
        self._stage = ""
        self._began = 0.0
        self._first: tuple[int, float] | None = None
        self._work: tuple[int, int, str] | None = None
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, stage: str) -> None:
        self._stage, self._began, self._work, self._first = stage, time.monotonic(), None, None

    def progress(self, done: int, total: int, unit: str) -> None:
        if self._first is None or (self._work and self._work[2] != unit):
            self._first = (done, time.monotonic())  # what a journal served at once says nothing of the rate
        self._work = (done, total, unit)

    def end(self, report: Report, cache: str, cost: Cost) -> None:
        self._rows[report.stage] = (f"{cost.wall_s:.1f} s", _told(cache), report.line)
        self._stage = ""

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for stage, (seconds, told, line) in self._rows.items():
            if stage == self._stage:
                elapsed = f"{time.monotonic() - self._began:.0f} s"
                table.add_row(f"[bold]{stage}", elapsed, "working", self._working())
            else:
                table.add_row(stage if seconds else f"[dim]{stage}", seconds, told, Text(line))  # it is no markup
        return table

    def _working(self) -> Table | str:
        if self._work is None or self._first is None:
            return ""
        done, total, unit = self._work
        (first, since) = self._first
        rate = (done - first) / max(time.monotonic() - since, 1e-9)
        left = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if done > first else ""
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(ProgressBar(total=total, completed=done, width=24), f"{done} of {total} {unit}{left}")
        return row


def _told(cache: str) -> Literal["cached", "worked"]:
    return "cached" if cache == "hit" else "worked"
