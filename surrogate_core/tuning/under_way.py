"""A trial on its way from its proposal to its end."""

from __future__ import annotations

import math
from typing import Literal

from surrogate_core.tuning.proposals import Proposal
from surrogate_core.tuning.trials import Trial
from surrogate_core.worker import Outcome


class TrialUnderWay:
    """Steps that are made one after the other or side by side, until all are there or one fails.

    Args:
        number: of the trial.
        proposal: the design.
        n_steps: there are.
        is_shared: whether others work on the study too, and Optuna's number counts.

    Attributes:
        known: what became of it in an earlier process.
        is_begun: whether a worker was given a step of it.
    """

    def __init__(self, number: int, proposal: Proposal, n_steps: int, is_shared: bool) -> None:
        self.number = proposal.trial.number if is_shared else number
        self.proposal, self.params, self.is_begun = proposal, proposal.params, False
        self._steps: list[float | None] = [None] * n_steps
        self.known: Trial | None = None
        self._ended: Trial | None = None

    @property
    def is_pending(self) -> bool:
        """Whether there is something to call."""
        return self.known is None and self._ended is None

    @property
    def done(self) -> Trial:
        """What became of it."""
        done = self.known or self._ended
        assert done is not None
        return done

    def until(self, step: int) -> list[float]:
        """Its steps up to one that it has reached, else none."""
        steps = self._steps if self.known is None else self.known.steps
        so_far = [one for one in steps[: step + 1] if one is not None]
        return so_far if self._ended is None and len(so_far) == step + 1 else []

    def take(self, step: int, outcome: Outcome) -> None:
        """What became of a step."""
        if outcome.status != "ok":
            self.fail(outcome.reason.removeprefix("ValueError: "))
            return
        self._steps[step] = outcome.value
        if None not in self._steps:
            self._end("ok")

    def take_all(self, outcome: Outcome) -> None:
        """What became of all steps together."""
        if outcome.status != "ok":
            self.fail(outcome.reason.removeprefix("ValueError: "))
            return
        self._steps = outcome.value if isinstance(outcome.value, list) else [outcome.value]
        self._end("ok")

    def prune(self) -> None:
        self._end("pruned")

    def fail(self, reason: str) -> None:
        self._ended = Trial(self.number, self.params, math.nan, "failed", reason, (), self.proposal.raw)

    def _end(self, status: Literal["ok", "pruned"]) -> None:
        steps = [step for step in self._steps if step is not None]
        value = math.fsum(steps) / len(steps)
        kept = tuple(steps) if len(self._steps) > 1 else ()
        self._ended = Trial(self.number, self.params, value, status, "", kept, self.proposal.raw)
