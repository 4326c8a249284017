"""A profile as files: JSON for programs, speedscope's and Chrome's formats for viewers, a page or a picture."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from surrogate_core.atomic import write_file
from surrogate_core.performance.profiler import PerformanceProfiler, Span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png", ".pdf")
LETTER = 0.0075  # of the whole: a letter of a bar's name; where it has no room, the color tells
THIN = 1 / 3000  # of the whole: bars below it are thinner than a pixel


def save_profile(profiler: PerformanceProfiler, path: Path) -> None:
    """Writes a profile in the format of its name.

    Raises:
        ValueError: nothing is written under such a name.
    """
    if path.name.endswith(".speedscope.json"):
        content = orjson.dumps(speedscope(profiler, path.name.removesuffix(".speedscope.json")))
    elif path.name.endswith(".trace.json"):
        content = orjson.dumps(chrome_trace(profiler))
    elif path.suffix == ".json":
        content = orjson.dumps(profiler.to_dict(), option=orjson.OPT_INDENT_2)
    elif path.suffix == ".html":
        content = page(profiler).encode()
    elif path.suffix in PICTURES:
        content = _drawn(profiler, path.suffix[1:])
    else:
        known = ", ".join((".json", ".speedscope.json", ".trace.json", ".html", *PICTURES))
        raise ValueError(f"path: expected a name that ends with one of {known}, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def page(profiler: PerformanceProfiler) -> str:
    """A page of HTML that fetches nothing: the picture, and tables of operations, memory and functions."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("surrogate_core.performance"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["seconds"] = _seconds
    told, spans = profiler.to_dict(), profiler.spans
    operations = sorted(told["timing_summary"].items(), key=lambda one: -one[1]["total_time"])
    return environment.get_template("profile.html").render(
        name=spans[0].name if spans else "nothing",
        made=time.strftime("%Y-%m-%d %H:%M"),
        picture=base64.b64encode(_drawn(profiler, "png")).decode(),
        operations=operations,
        memory={"device": {}, **told["memory_summary"]} if told["memory_summary"] else {},
        **{name: sum(getattr(span, name) for span in spans) for name in ("wall_s", "cpu_s", "compile_s")},
        **{name: told[name] for name in ("spans", "counters", "functions")},
    )


def chrome_trace(profiler: PerformanceProfiler) -> dict[str, Any]:
    """Complete events, in microseconds, of the Trace Event Format; a counter of memory where it was sampled."""
    events: list[dict[str, Any]] = []
    threads = {name: number for number, name in enumerate(_threads(profiler))}
    start = _start(profiler)
    for span, _ in _walk(profiler.spans):
        events.append(
            {
                "name": span.name,
                "ph": "X",
                "pid": 1,
                "tid": threads[span.thread],
                "ts": 1e6 * (span.began - start),
                "dur": 1e6 * span.wall_s,
                "args": {"cpu_s": span.cpu_s, "compile_s": span.compile_s},
            }
        )
    for at, mb in _samples(profiler):
        events.append({"name": "memory", "ph": "C", "pid": 1, "ts": 1e6 * at, "args": {"MB": mb}})
    names = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
        for name, number in threads.items()
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ms"}


def speedscope(profiler: PerformanceProfiler, name: str) -> dict[str, Any]:
    """An evented profile for each thread, as in speedscope's file format."""
    frames: dict[str, int] = {}
    start, profiles = _start(profiler), []
    for thread in _threads(profiler):
        events = [
            {"type": kind, "frame": frames.setdefault(name, len(frames)), "at": at}
            for kind, name, at in _events(profiler.spans, thread, start, 0.0, float("inf"))
        ]
        end = events[-1]["at"]
        profiles.append(
            {"type": "evented", "name": thread, "unit": "seconds", "startValue": 0, "endValue": end, "events": events}
        )
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": profiles,
        "name": name,
        "exporter": "surrogate-lab",
    }


def _events(spans: list[Span], thread: str, start: float, low: float, high: float) -> Iterator[tuple[str, str, float]]:
    """Where operations of a thread open (O) and close (C), in order, each within the one around it."""
    for span in sorted(spans, key=lambda one: one.began):
        if span.thread != thread:
            yield from _events(span.children, thread, start, low, high)
            continue
        begin = min(max(span.began - start, low), high)
        end = min(max(begin, span.began - start + span.wall_s), high)
        yield "O", span.name, begin
        yield from _events(span.children, thread, start, begin, end)
        yield "C", span.name, end
        low = end


def _drawn(profiler: PerformanceProfiler, format: str) -> bytes:
    buffer = BytesIO()
    flame(profiler).savefig(buffer, format=format, dpi=150)
    return buffer.getvalue()


def flame(profiler: PerformanceProfiler) -> Figure:
    """Operations as bars over time, what is within one below it, the compiler's part dark; memory under them."""
    from matplotlib import colormaps  # takes half a second to import
    from matplotlib.figure import Figure

    walked, samples, start = list(_walk(profiler.spans)), _samples(profiler), _start(profiler)
    total = max((span.began + span.wall_s - start for span, _ in walked), default=1.0) or 1.0
    depth = 1 + max((level for _, level in walked), default=0)
    rows = [0.45 * depth + 0.5, *([1.6] if samples else [])]
    figure = Figure(figsize=(10, sum(rows) + 0.9), layout="constrained")
    axes, *below = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    names = sorted({span.name for span, _ in walked})
    colors, unnamed = colormaps["tab20" if len(names) > 10 else "tab10"].colors, dict[str, Any]()  # type: ignore[attr-defined]
    for span, level in walked:
        if span.wall_s < THIN * total:
            continue
        begin, color = span.began - start, colors[names.index(span.name) % len(colors)]
        bar = axes.barh(-level, span.wall_s, left=begin, height=0.9, color=color, alpha=0.6, edgecolor="white", lw=0.5)
        if span.compile_s > 0:
            axes.barh(-level - 0.36, span.compile_s, left=begin, height=0.18, color="0.25")
        told = f" {span.name}  {_seconds(span.wall_s)} "
        if span.wall_s > LETTER * len(told) * total:
            axes.text(begin, -level, told, va="center", ha="left", fontsize=8, clip_on=True)
        else:
            unnamed.setdefault(span.name, bar)
    if unnamed:
        figure.legend(unnamed.values(), unnamed, loc="outside upper right", ncols=5, fontsize=8, frameon=False)
    axes.set(xlim=(0, total), ylim=(-depth + 0.4, 0.6), yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    compiled = sum(span.compile_s for span in profiler.spans)
    axes.set_title(f"{_seconds(total)}, of which {_seconds(compiled)} compiling (dark)", loc="left", fontsize=10)
    for memory in below:
        times, mb = zip(*samples, strict=True)
        memory.fill_between(times, mb, color="0.8", step="post")
        memory.set(ylabel="memory (MB)", ylim=(0, None))
        memory.spines[["right", "top"]].set_visible(False)
    (below or [axes])[-1].set_xlabel("seconds")
    return figure


def _seconds(seconds: float) -> str:
    if seconds >= 0.1 or seconds == 0:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.2g} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.2g} us"


def _walk(spans: list[Span], level: int = 0) -> Iterator[tuple[Span, int]]:
    for span in spans:
        yield span, level
        yield from _walk(span.children, level + 1)


def _threads(profiler: PerformanceProfiler) -> list[str]:
    return list(dict.fromkeys(span.thread for span, _ in _walk(profiler.spans)))


def _start(profiler: PerformanceProfiler) -> float:
    return min((span.began for span, _ in _walk(profiler.spans)), default=0.0)


def _samples(profiler: PerformanceProfiler) -> list[tuple[float, float]]:
    return profiler.memory.samples if profiler.memory is not None else []
