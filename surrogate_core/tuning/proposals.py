"""What is tried next: a sampler's proposals, of which none has been tried before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from surrogate_core.tuning.identity import param_signature
from surrogate_core.tuning.records import Duplicate, Records
from surrogate_core.tuning.samplers import Pruner, Sampler
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.trials import Trial

if TYPE_CHECKING:
    from surrogate_core.tuning.guard import DuplicateGuard
    from surrogate_core.tuning.storage import Joined

MAX_REPEATS = 20  # proposals already tried before an untried design is drawn in their place
MAX_LISTED = 100_000  # designs of a space that are listed to find one that is untried; of larger ones some are drawn
MAX_DRAWN = 1000


@dataclass(frozen=True, eq=False)
class Proposal:
    """A design that is to be tried.

    Attributes:
        params: the design.
        raw: what the sampler proposed, in the order that the space asks for it.
        signature: that no other proposal has.
        trial: Optuna's.
        is_retried: whether its first process has not ended it.
    """

    params: dict[str, Any]
    raw: tuple[Any, ...]
    signature: str
    trial: optuna.Trial
    is_retried: bool


class Proposer:
    """A study of Optuna's that is asked for designs which have not been tried, and told what became of them.

    Args:
        space: of the designs.
        study: what proposals are recorded in.
        sampler: what makes them.
        pruner: what judges their steps.
        parallel: proposals that are made without knowing what becomes of each other.
        n_steps: of a trial.
        seed: of all proposals.
        precision: decimals by which designs differ.
        first: designs to propose before all others.
        guard: what has been tried by any process; None where there is this one alone.
        records: what remembers which claims are this study's own, which the guard knows from its earlier life.
        joined: what others who work on the study are told; None where there is this process alone.

    Attributes:
        n_duplicates: proposals that had been tried, and were answered with what became of them.
        duplicates: those of the last batch.
        n_refused: of all duplicates, those that other processes had tried.
        tried: signatures of what was proposed, with the trial where it has ended.
    """

    def __init__(
        self,
        space: TuningSpace,
        study: optuna.Study,
        sampler: Sampler,
        pruner: Pruner,
        *,
        parallel: int,
        n_steps: int,
        seed: int,
        precision: int,
        first: Sequence[Mapping[str, Any]] = (),
        guard: DuplicateGuard | None = None,
        records: Records,
        joined: Joined | None = None,
    ) -> None:
        self._space, self.study, self._sampler, self._pruner = space, study, sampler, pruner
        self._parallel, self._seed, self._precision = parallel, seed, precision
        self._first = [dict(params) for params in first]
        self._grid = space.expand() if sampler.kind == "grid" else None
        self._listed: Iterator[Mapping[str, Any]] | None = None
        self._guard, self._records, self._joined = guard, records, joined
        self._own = frozenset(() if guard is None else records.claimed)
        self.n_duplicates = self.n_refused = 0
        self.tried: dict[str, Trial | None] = {}
        self.duplicates: list[Duplicate] = []
        study.sampler, study.pruner = sampler.make(seed, 0, parallel, space.has_branches), pruner.make(n_steps)

    def signature(self, params: Mapping[str, Any]) -> str:
        return param_signature(params, self._precision)

    def propose(self, batch: int, n: int) -> list[Proposal]:
        """Designs that have not been tried; fewer than n where there are no more.

        What a batch is depends on its number, the seed and what has been told, and on nothing else, unless the sampler
        is stateful or others try designs too.
        """
        if not self._sampler.is_stateful:
            self.study.sampler = self._sampler.make(self._seed, batch, self._parallel, self._space.has_branches)
        self.duplicates = []
        proposals: list[Proposal] = []
        while len(proposals) < n and (proposal := self._next(batch, len(proposals))) is not None:
            proposals.append(proposal)
        return proposals

    def tell(self, proposal: Proposal, ended: Trial) -> Trial | None:
        """What became of a proposal.

        Returns:
            What counts; None where another process tries it again, as this one was silent for too long.
        """
        self.tried[proposal.signature] = ended
        if self._guard is not None and ended.status == "ok":
            self._guard.record(proposal.signature, ended.value)
        if self._joined is None:
            self._end(proposal.trial, ended)
            return ended
        number = self._joined.end(proposal.trial, ended, lambda trial: self._end(trial, ended))
        return None if number is None else replace(ended, number=number)

    def take(self, ended: Trial) -> None:
        """What became of a design that somebody else has tried."""
        self.tried[self.signature(ended.params)] = ended

    def should_prune(self, proposal: Proposal, steps: list[float]) -> bool:
        """Whether a trial is to be broken off after some of its steps."""
        told = self._pruner.told(steps)
        if not math.isfinite(told):
            return False
        try:
            proposal.trial.report(told, len(steps))
        except UpdateFinishedTrialError:  # another process has given it up
            return False
        return proposal.trial.should_prune()

    def restore(self, history: Sequence[tuple[Trial, bool]]) -> None:
        """Takes up trials of an earlier process, without asking the sampler for them again.

        Args:
            history: trials in the order that they were proposed, and whether each was a duplicate then.
        """
        frozen = []
        for trial, is_duplicate in history:
            self.n_duplicates += is_duplicate
            if not is_duplicate:
                self.tried[self.signature(trial.params)] = trial
            if self._sampler.learns or self._pruner.kind != "none":
                frozen.append(self._frozen(trial))
        if frozen:
            self.study.add_trials(frozen)

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        assert trial.raw is not None
        place, raw, leaves = iter(trial.raw), {}, {}

        def ask(name: str, distribution: BaseDistribution) -> Any:
            raw[name], leaves[name] = next(place), distribution
            return raw[name]

        self._space.propose(ask)
        known: dict[str, Any] = {"params": raw, "distributions": leaves}
        if trial.status not in ("ok", "pruned"):
            return create_trial(state=TrialState.FAIL, **known)
        steps = trial.steps if trial.status == "pruned" else trial.steps[:-1]  # at the last one nothing is pruned
        if self._pruner.kind != "none":
            known["intermediate_values"] = {k + 1: self._pruner.told(list(steps[: k + 1])) for k in range(len(steps))}
        if trial.status == "pruned" and steps:
            return create_trial(state=TrialState.PRUNED, value=self._pruner.told(list(steps)), **known)
        return create_trial(value=trial.value, **known)

    def _next(self, batch: int, place: int) -> Proposal | None:
        while self._first:
            if (proposal := self._of(self._first.pop(0))) is not None:
                return proposal
        if self._grid is not None:
            return self._queued() or self._first_of(self._untried(self._grid))
        for _ in range(MAX_REPEATS):
            proposal = self._ask()
            if self._claim(proposal):
                return proposal
            self._answer_duplicate(proposal, place)
        designs = self._designs(np.random.default_rng([self._seed, batch, place]))
        return self._first_of(params for params in designs if not self._is_of_others(self.signature(params)))

    def _queued(self) -> Proposal | None:
        """A trial that waits in a study that others work on too, as its process is gone."""
        while self._joined is not None and self._joined.waits:
            proposal = self._ask()
            if self._claim(proposal):
                return proposal
            self._answer_duplicate(proposal, 0)
        return None

    def _untried(self, grid: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Designs that nobody else has tried, for there is no sampler to be told of those; but they count."""
        for params in grid:
            if not self._is_of_others(self.signature(params)):
                yield params
            else:
                self.n_refused += 1
                self.n_duplicates += self._joined is None

    def _first_of(self, designs: Iterator[Mapping[str, Any]]) -> Proposal | None:
        return next((proposal for params in designs if (proposal := self._of(params)) is not None), None)

    def _of(self, params: Mapping[str, Any]) -> Proposal | None:
        """The proposal of a design that somebody else has chosen; None where it has been tried."""
        if self.signature(params) in self.tried:
            return None
        raw = self._space.raw(params)
        leaves = {name: self._space.leaves[name].distribution for name in raw}
        # Not by the queue, from which another process might take it.
        chosen = create_trial(state=TrialState.RUNNING, params=raw, distributions=leaves)
        made = self.study._storage.create_new_trial(self.study._study_id, template_trial=chosen)
        proposal = self._asked(optuna.Trial(self.study, made))
        if self._claim(proposal):
            return proposal
        self._answer_duplicate(proposal, 0)
        return None

    def _is_of_others(self, signature: str) -> bool:
        return self._guard is not None and signature not in self._own and self._guard.seen(signature)

    def _claim(self, proposal: Proposal) -> bool:
        """Whether a design is not tried yet, nor claimed by another process; afterwards it is this one's."""
        signature = proposal.signature
        if signature in self.tried and not proposal.is_retried:
            return False
        self.tried[signature] = None
        if self._joined is not None:  # what is claimed by a process that is then killed must be there to be retried
            self._joined.claim(proposal.trial, proposal.params)
        if self._guard is not None and signature not in self._own:
            self._records.claim(signature)
            if not self._guard.claim(signature) and not proposal.is_retried:
                self._records.refused(signature)
                self.n_refused += 1
                return False
        return True

    def _answer_duplicate(self, proposal: Proposal, place: int) -> None:
        """Tells the sampler what is known of a design that has been tried, which is no trial of this study again."""
        known = self.tried[proposal.signature]
        value = None if known is None or known.status != "ok" else known.value  # of a pruned one it is a part's
        if known is None and self._guard is not None:
            value = self._guard.value(proposal.signature)
        self.n_duplicates += 1
        self.duplicates.append((place, proposal.raw, value))
        if self._joined is not None:
            self._joined.repeats(proposal.trial)
        self._answer(proposal.trial, value)

    def _end(self, trial: optuna.Trial, ended: Trial) -> None:
        if ended.status == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._answer(trial, None if math.isnan(ended.value) else ended.value)

    def _answer(self, trial: optuna.Trial, value: float | None) -> None:
        if value is None:  # it has failed, or not ended
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, value)

    def _ask(self) -> Proposal:
        while True:
            trial = self.study.ask()
            proposal = self._asked(trial, self._joined is not None and self._joined.is_retried(trial))
            if self._guard is None or not proposal.is_retried:
                return proposal
            # SQLite may give one and the same trial that waits to two who ask.
            if self._guard.claim(f"{proposal.signature}/{trial.number}"):
                return proposal

    def _asked(self, trial: optuna.Trial, is_retried: bool = False) -> Proposal:
        raw: list[Any] = []

        def ask(name: str, distribution: BaseDistribution) -> Any:
            proposed: Any
            if isinstance(distribution, FloatDistribution):
                proposed = trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
            elif isinstance(distribution, IntDistribution):
                proposed = trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
            else:
                assert isinstance(distribution, CategoricalDistribution)
                proposed = trial.suggest_categorical(name, distribution.choices)
            raw.append(proposed)
            return proposed

        params = self._space.propose(ask)
        return Proposal(params, tuple(raw), self.signature(params), trial, is_retried)

    def _designs(self, rng: np.random.Generator) -> Iterator[Mapping[str, Any]]:
        """All designs of a space that is not too large, in an order that the seed fixes, or some of a larger one."""
        if self._space.estimate.n_designs > MAX_LISTED:
            return (self._space.propose(lambda name, what: draw(what, rng)) for _ in range(MAX_DRAWN))
        if self._listed is None:
            designs = list(self._space.expand())
            self._listed = (designs[i] for i in np.random.default_rng(self._seed).permutation(len(designs)))
        return self._listed


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A raw value, uniformly."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if not distribution.log:
        return (
            rng.uniform(low, high)
            if isinstance(distribution, FloatDistribution)
            else int(rng.integers(int(low), int(high) + 1))
        )
    value = min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    return value if isinstance(distribution, FloatDistribution) else round(value)
