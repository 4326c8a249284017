"""What a check of the doctor says: the subject, the verdict, what was found, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `cure` is empty where there is nothing to mend. A command in it is `quoted so`."""

    subject: str
    verdict: Verdict
    text: str
    cure: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, "ok", text)


def warn(subject: str, text: str, cure: str) -> Finding:
    return Finding(subject, "warn", text, cure)


def fail(subject: str, text: str, cure: str) -> Finding:
    return Finding(subject, "fail", text, cure)
