"""`surrogate doctor`: looks at all that a run depends on, and says for each finding how to mend it.

It only looks: nothing is started, made or changed. The checks import late, for a library may be what is broken.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flows.doctor import installation, project, services
from flows.doctor.finding import Finding, Verdict, fail

Check = Callable[[Path], Iterator[Finding]]

CHECKS: Mapping[str, Check] = {
    "python": installation.python,
    "libraries": installation.libraries,
    "processor": installation.processor,
    "gpu": installation.gpu,
    "memory": installation.memory,
    "disk": installation.disk,
    "environment": installation.environment,
    "telemetry": installation.telemetry,
    "prefect": services.prefect,
    "mlflow": services.mlflow,
    "lock": project.lock,
    "checkpoints": project.checkpoints,
    "versioning": project.versioning,
    "settings": project.settings,
    "cache": project.cache,
}
"""By subject, in the order of the output; the slow ones last."""

_COLOURS: Mapping[Verdict, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


def examine(root: Path, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """What every check finds, as it finds it; one that breaks is a failure of its own and hides no other."""
    for subject, check in checks.items():
        try:
            yield from check(root)
        except Exception as error:  # noqa: BLE001 - whatever is broken here is what we are asked for
            found = f"could not be looked at: {type(error).__name__}: {error}"
            yield fail(subject, found, "mend what that names; if it names nothing of yours, please report it")


def told(finding: Finding, width: int) -> str:
    """A finding as lines of at most `width` characters, though no command is broken; with colours for a terminal."""
    import click

    verdict = click.style(f"{finding.verdict:<4}", fg=_COLOURS[finding.verdict], bold=finding.verdict != "ok")
    margin = f"{'':<4}  {'':<11}  "
    lines = _wrapped(finding.text, width, margin)
    if finding.cure:
        lines += _wrapped(f"→ {finding.cure}", width, margin, "  ")
    return f"{verdict}  {finding.subject:<11}  {lines[0].lstrip()}" + "".join(f"\n{line}" for line in lines[1:])


def summary(findings: Sequence[Finding]) -> str:
    """All findings in a line."""
    count = Counter(one.verdict for one in findings)
    worst = f"{count['fail']} to be mended" if count["fail"] else "Nothing to be mended"
    return f"{worst}; {count['warn']} worth a look, {count['ok']} fine"


def _wrapped(text: str, width: int, margin: str, further: str = "") -> list[str]:
    # A command that is quoted can be copied: only plain blanks are places to break at.
    whole = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", "\xa0"), text)
    wrapped = textwrap.wrap(
        whole,
        width,
        initial_indent=margin,
        subsequent_indent=margin + further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in wrapped]
