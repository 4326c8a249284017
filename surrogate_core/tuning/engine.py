"""One run of a study: proposes, has designs evaluated, tells, remembers, until something ends it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna

from surrogate_core.execution import ExecutorSpec, Pool, open_pool
from surrogate_core.journal import Journal
from surrogate_core.measurement import interpret
from surrogate_core.tuning.merge import copied
from surrogate_core.tuning.proposals import Proposer
from surrogate_core.tuning.records import TRIES, Records
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.storage import Joined
from surrogate_core.tuning.trials import Trial
from surrogate_core.tuning.under_way import TrialUnderWay
from surrogate_core.tuning.watch import Progress, Watch
from surrogate_core.worker import Outcome

if TYPE_CHECKING:
    from surrogate_core.tuning.guard import DuplicateGuard
    from surrogate_core.tuning.study import Objective, Stopped, StudySpec

NAME = "surrogate"  # which hyperband's brackets depend on


@dataclass(frozen=True)
class _Call:
    """The objective at a step of a trial, or at all of them one after the other."""

    objective: Objective
    n_steps: int

    def __call__(self, job: tuple[dict[str, Any], int | None] | None) -> Any:
        if job is None:  # nothing was left to try when a worker was free
            return None
        params, step = job
        if self.n_steps == 1:
            return _value(self.objective(copied(params)), params)
        if step is not None:
            return _value(self.objective(copied(params), step), params)
        return [_value(self.objective(copied(params), k), params) for k in range(self.n_steps)]


def _value(returned: Any, params: Mapping[str, Any]) -> float:
    """The value in what an objective returned.

    Raises:
        TypeError, ValueError: there is none, or a constraint is not met.
    """
    told = interpret(returned, params)
    if told.status != "ok":
        raise ValueError(told.reason)
    return told.value


class Run:
    """A study from its beginning, or from where it was left, to its end.

    Args:
        objective, space, spec, journal, executor, timeout, guard, first, on_trial, on_warning: as of `search`.
        joined: what others who work on the study are told; None where there is this process alone.

    Attributes:
        told: trials in the order they were told.
        watch: on how the study is getting on.
        stopped: why it ended.
        n_duplicates, n_refused: proposals that had been tried, and those of them that other processes had tried.
    """

    def __init__(
        self,
        objective: Objective,
        space: TuningSpace,
        spec: StudySpec,
        *,
        journal: Journal | None,
        executor: ExecutorSpec,
        timeout: float | None,
        guard: DuplicateGuard | None,
        first: Sequence[Mapping[str, Any]],
        on_trial: Callable[[Trial, Progress], None] | None,
        on_warning: Callable[[str], None] | None,
        joined: Joined | None,
    ) -> None:
        self._call = _Call(objective, spec.n_steps)
        self._spec, self._joined = spec, joined
        self._tells_at_once = spec.asynchronous or joined is not None  # there is no order that a seed fixes
        self._executor, self._timeout = executor, timeout
        self._batch, seed = spec.batch_in(space), spec.fixed_seed
        self._n_trials = int(min(spec.n_trials, space.estimate.n_designs))
        self._n_smoke = min(spec.n_smoke, self._n_trials)
        self._on_trial = on_trial
        self.watch = Watch(spec.sign, self._n_trials, on_warning)
        if warned := space.estimate.too_small_for(spec.n_trials):
            self.watch.warn(warned)
        sampler, precision = spec.proposed_by, spec.precision_in(space)
        identity = spec.identity(space, first)
        self._records = Records(journal, identity)
        # Those who work on one study must not propose alike.
        self._first_batch = 0 if joined is None else secrets.randbits(31)
        retried = self._records.in_flight.values() if spec.asynchronous else []  # a batch is proposed as it was
        self._proposer = Proposer(
            space,
            joined.study if joined is not None else optuna.create_study(study_name=NAME, direction=spec.direction),
            sampler,
            spec.pruner,
            parallel=self._batch,
            n_steps=spec.n_steps,
            seed=seed,
            precision=precision,
            first=[*retried, *first],
            guard=guard,
            records=self._records,
            joined=joined,
        )
        self.told: list[Trial] = []
        self.stopped: Stopped = "done"

    @property
    def n_duplicates(self) -> int:
        return self._proposer.n_duplicates

    @property
    def n_refused(self) -> int:
        return self._proposer.n_refused

    def go(self) -> None:
        """Works until something ends the study."""
        self._began = time.monotonic()
        with ExitStack() as stack:
            if self._joined is not None:
                stack.enter_context(self._joined)
            self._take_up()
            pool = stack.enter_context(open_pool(self._call, self._executor, self._timeout))
            try:
                (self._asynchronously if self._spec.asynchronous else self._in_batches)(pool)
            except BaseException:
                self._records.interrupt()
                raise

    def _take_up(self) -> None:
        """What an earlier process has finished, but for what depends on more than that, which is proposed again."""
        if self._spec.asynchronous:
            history = self._records.in_order_of_end()[: self._n_trials]
        elif self._spec.proposed_by.is_stateful or self._spec.pruner.is_stateful:
            history = []
        else:
            history = self._records.take_up(self._size)
        self._proposer.restore(history)
        for trial, is_duplicate in history:
            if not is_duplicate:
                self._count(trial)

    def _is_over(self) -> bool:
        if self._joined is not None:
            for trial in self._joined.hear():
                self._proposer.take(trial)
                self._count(trial)
        n_told, spec = len(self.told), self._spec
        if n_told >= self._n_trials:
            self.stopped = "done"
        elif 0 < self._n_smoke <= n_told == self.watch.n_failed:
            self.stopped = "smoke"
        elif spec.patience is not None and self.watch.n_without_better >= spec.patience:
            self.stopped = "patience"
        elif spec.time_budget is not None and time.monotonic() - self._began >= spec.time_budget:
            self.stopped = "time_budget"
        else:
            return False
        return True

    def _size(self, n_told: int) -> int:
        """Trials of the batch that comes after so many."""
        return min(self._batch, self._n_trials - n_told)

    def _in_batches(self, pool: Pool) -> None:
        while not self._is_over():
            n = self._size(len(self.told))
            proposals = self._proposer.propose(self._first_batch + self._records.n_batches, n)
            if not proposals:
                self.stopped = "exhausted"
                return
            first = len(self.told)
            trials = [
                TrialUnderWay(first + i, proposal, self._spec.n_steps, self._joined is not None)
                for i, proposal in enumerate(proposals)
            ]
            n_smoke, all_failed = max(0, self._n_smoke - first), self.watch.n_failed == first
            self._evaluate(pool, trials[:n_smoke])
            failed = [trial for trial in trials[:n_smoke] if trial.done.status == "failed"]
            if n_smoke and len(failed) == n_smoke and all_failed:
                trials = failed  # nothing has worked: the rest is not tried
            self._evaluate(pool, trials[n_smoke:])
            for trial in [] if self._tells_at_once else trials:
                self._tell(trial)
            self._records.close_batch(first, len(trials), self._proposer.duplicates)

    def _evaluate(self, pool: Pool, trials: Sequence[TrialUnderWay]) -> None:
        """Makes every trial end, in whatever order, those that the journal knows without a call."""
        for trial in trials:
            trial.known = self._records.known(trial.number, trial.params)
            self._bury(trial)
        prunes, n_steps = self._spec.pruner.kind != "none", self._spec.n_steps
        for together in [[step] for step in range(n_steps)] if prunes else [range(n_steps)]:
            self._make(pool, [(trial, step) for step in together for trial in trials if trial.is_pending])
            if prunes and together[0] + 1 < n_steps:
                for trial in trials:
                    so_far = trial.until(together[0])
                    if so_far and self._proposer.should_prune(trial.proposal, so_far) and trial.known is None:
                        trial.prune()
                        self._end(trial)

    def _bury(self, trial: TrialUnderWay) -> None:
        """Ends a trial that has killed every process that tried it."""
        if trial.is_pending and self._records.is_deadly(trial.number, trial.params):
            trial.fail(f"its process was killed {TRIES} times")
            self._end(trial)

    def _make(self, pool: Pool, jobs: Sequence[tuple[TrialUnderWay, int]]) -> None:
        def begin(i: int) -> None:
            self._begin(jobs[i][0])

        def end(i: int, outcome: Outcome) -> None:
            trial, step = jobs[i]
            if not trial.is_pending:  # a step before has failed
                return
            trial.take(step, outcome)
            if not trial.is_pending:
                self._end(trial)

        pool.run([(trial.params, step) for trial, step in jobs], begin, end)

    def _begin(self, trial: TrialUnderWay) -> None:
        if not trial.is_begun:
            trial.is_begun = True
            self._records.begin(trial.number, trial.params)
            if self._joined is not None:
                self._joined.begin(trial.proposal.trial)

    def _end(self, trial: TrialUnderWay) -> None:
        self._records.end(trial.done)
        if self._tells_at_once:
            self._tell(trial)

    def _tell(self, trial: TrialUnderWay) -> None:
        told = self._proposer.tell(trial.proposal, trial.done)
        if told is not None:
            self._count(told)

    def _count(self, ended: Trial) -> None:
        self.told.append(ended)
        self.watch.n_duplicates = self._proposer.n_duplicates
        progress = self.watch.told(ended)
        if self._on_trial is not None:
            self._on_trial(ended, progress)

    def _asynchronously(self, pool: Pool) -> None:
        under_way: dict[int, TrialUnderWay] = {}
        n_before = len(self.told)

        def job(i: int) -> tuple[dict[str, Any], None] | None:
            if i not in under_way:  # else its worker has died, and another one is to make the call
                trial = self._next(n_before + i, len(under_way))
                if trial is None:
                    return None
                under_way[i] = trial
            return under_way[i].params, None

        def end(i: int, outcome: Outcome) -> None:
            trial = under_way.pop(i, None)
            if trial is not None:
                trial.take_all(outcome)
                self._end(trial)

        def end_many(numbers: Sequence[int], outcomes: Sequence[Outcome]) -> None:
            for i, outcome in zip(numbers, outcomes, strict=True):
                end(i, outcome)

        pool.run_chunks(_AsAsked(job, self._n_trials - n_before), lambda numbers: None, end_many, 0.0)

    def _next(self, batch: int, n_under_way: int) -> TrialUnderWay | None:
        """The next trial that is to be called, as it begins; None where there is none."""
        while not self._is_over():
            proposals = self._proposer.propose(self._first_batch + batch, 1)
            if not proposals:
                self.stopped = "exhausted"
                return None
            number = self._records.number_of(proposals[0].params, len(self.told) + n_under_way)
            trial = TrialUnderWay(number, proposals[0], self._spec.n_steps, self._joined is not None)
            self._bury(trial)
            if trial.is_pending:
                self._begin(trial)
                return trial
        return None


class _AsAsked(Sequence[Any]):
    """Arguments that come to be when a worker is free."""

    def __init__(self, argument: Callable[[int], Any], n: int) -> None:
        self._argument, self._n = argument, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self._argument(k) for k in range(*i.indices(self._n))]
        return self._argument(i)
