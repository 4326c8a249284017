"""The five stages: what each computes of the files it reads, as the files it writes. Each is one thin Prefect task."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np
import orjson

from surrogate_core.collection import design, evaluate_points
from surrogate_core.constraints import ConstraintFailed
from surrogate_core.dataset import STATUSES, Dataset
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import WorkerNotStarted
from surrogate_core.journal import Journal
from surrogate_core.output_log import OutputLog
from surrogate_core.refinement import Refinement, fit_or_standardize, refine
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.tuning.study import Trial, search
from surrogate_core.validation.cross_validation import cross_validate
from surrogate_core.validation.gates import judge
from tasks.errors import BadInput, StageFailed
from tasks.files import StageFiles
from tasks.keys import (
    CHAMPION,
    DATASET,
    EVALUATIONS,
    MODEL,
    OPTIMIZED,
    OPTIMUM,
    RECOMMENDATION,
    TUNED_EVALUATIONS,
    TUNING,
    VALIDATION,
)
from tasks.outputs import read_dataset, read_json, read_model
from tasks.settings import parse_spec
from tasks.workspace import Workspace

_logger = logging.getLogger("surrogate.stages")

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and a few words on how it goes."""


def collect(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Places points by the sampling design and evaluates them, or reads a table of evaluations."""
    problem, asked = workspace.settings.problem, workspace.settings.collect
    if problem.is_offline:
        return {DATASET: problem.rows(workspace.root, 2 * workspace.settings.validate.folds).to_bytes()}
    space = problem.search_space
    assert space is not None
    try:
        X = design(space, asked.sampling, asked.n_samples, asked.seed)
    except ValueError as error:
        raise BadInput(f"problem.{error}") from error
    with _evaluation(workspace, space, "collect", key) as evaluate:
        rows = evaluate(X, "sample", progress, 0, len(X))
    if rows.ok.n_samples == 0:
        raise StageFailed(f"collect: none of {len(X)} evaluations can be learned from, the first for: {rows.reason[0]}")
    return {DATASET: rows.to_bytes()}


def fit(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Fits the champion spec to the dataset."""
    asked = workspace.settings.fit
    dataset = read_dataset(workspace, DATASET)
    try:
        fitted = asked.spec.fit(dataset, jax.random.key(asked.seed))
    except ValueError as error:  # the data does not suit the spec
        raise StageFailed(f"fit.surrogate.{error}") from error
    return _in_folder(MODEL, surrogate_files(fitted))


def validate(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Cross-validates the model's spec and judges it by the gates."""
    settings = workspace.settings
    spec, dataset = read_model(workspace, MODEL).spec, read_dataset(workspace, DATASET)
    n_ok, folds = dataset.ok.n_samples, settings.validate.folds
    if n_ok < folds:
        failed = f": {dataset.reason[dataset.status != 'ok'][0]}" if n_ok < dataset.n_samples else ""
        raise StageFailed(
            f"validate.folds: expected at most {n_ok}, as so many of {dataset.n_samples} evaluations succeeded, got "
            f"{folds}; collect more, or mend what made them fail and raise problem.version{failed}"
        )
    checked = cross_validate(spec, dataset, folds, settings.validate.seed)
    gates = judge(checked.metrics, settings.gates.bounds)
    table = checked.table(settings.problem.sign)
    report = {
        "metrics": checked.metrics,
        "passed": all(gate.passed for gate in gates),
        "gates": [asdict(gate) for gate in gates],
        "n_rows": dataset.ok.n_samples,
        "surrogate": spec.to_config(),
        "held_out": table,
    }
    return {VALIDATION: _json(report)}


def optimize(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Proposes designs in rounds, evaluates them and learns from them."""
    settings = workspace.settings
    failed = _failed_gates(workspace)
    if failed and settings.gates.on_fail == "stop":
        verdicts = ", ".join(failed)
        raise StageFailed(f"optimize: the model fails {verdicts}; collect more, tune it, or set gates.on_fail to warn")
    dataset, asked = read_dataset(workspace, DATASET), settings.optimize
    n_rounds = 1 if settings.problem.is_offline else asked.rounds  # what is not measured teaches nothing
    batches = [asked.evaluations_per_round] * n_rounds
    with _evaluation(workspace, dataset.space, "optimize", key, dataset) as evaluate:
        found = _refine(workspace, read_model(workspace, MODEL), dataset, batches, asked.seed, evaluate, progress)
    sign = settings.problem.sign
    table = _proposals(found, sign)
    report = {
        "best_sample": _design(dataset, sign),
        **_outcome(dataset, found.evaluations, table, sign),
        **_counts(found.evaluations),
        "surrogate": found.fitted.spec.to_config(),
        "rounds": _rounds(table, dataset, sign),
        "evaluations": table,
    }
    return {
        EVALUATIONS: found.evaluations.to_bytes(),
        **_in_folder(OPTIMIZED, surrogate_files(found.fitted)),
        OPTIMUM: _json(report),
    }


def tune(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Searches specs for a challenger to the champion, optimizes by the best, and recommends a design."""
    settings = workspace.settings
    asked, sign = settings.tune, settings.problem.sign
    samples, optimum = read_dataset(workspace, DATASET), read_json(workspace, OPTIMUM)
    evaluations = read_dataset(workspace, EVALUATIONS)
    dataset = samples if settings.problem.is_offline else samples.append(evaluations)  # what was proposed may be again
    champion = parse_spec(optimum["surrogate"])
    failed = _failed_gates(workspace)

    def check(spec: Surrogate) -> Any:
        return cross_validate(spec, dataset, settings.validate.folds, settings.validate.seed)

    def nlpd(params: Any) -> float:
        return check(replace(champion, **params)).metrics["nlpd"]

    def tell(trial: Trial, total: int) -> None:
        progress(trial.number + 1, total, "specs")

    space = settings.tune_space
    first = {name: getattr(champion, name) for name in space}
    known = all(first[name] in values for name, values in space.items())
    with _journal(workspace, "tune", key) as journal:
        study = search(
            nlpd,
            space,
            n_trials=asked.n_trials,
            batch=asked.batch,
            seed=asked.seed,
            first=first if known else None,
            journal=journal,
            on_trial=tell,
        )
    if all(trial.status == "failed" for trial in study.trials):
        raise StageFailed(f"tune.space: all {len(study.trials)} specs failed, the first with: {study.trials[0].reason}")
    challenger = replace(champion, **study.best.params)
    defended, challenged = check(champion), check(challenger)
    advantage = challenged.log_density - defended.log_density
    error = float(advantage.std(ddof=1) / np.sqrt(len(advantage)))

    per_round = settings.optimize.evaluations_per_round
    batches = [min(per_round, asked.evaluations - done) for done in range(0, asked.evaluations, per_round)]
    if settings.problem.is_offline:
        batches = [asked.evaluations]
    model = challenger.fit(dataset, jax.random.key(asked.seed))
    with _evaluation(workspace, dataset.space, "tune", key, dataset) as evaluate:
        found = _refine(workspace, model, dataset, batches, asked.seed, evaluate, progress)
    everything = dataset.append(found.evaluations)
    fits = found.fitted.spec == challenger  # its transform has not been ruled out by what was measured
    promoted = bool(challenger != champion and fits and advantage.mean() > error)
    winner = challenger if promoted else champion
    final = found.fitted if winner == challenger else fit_or_standardize(winner, everything, jax.random.key(asked.seed))

    table = _proposals(found, sign)
    tuning = {
        "champion": {"surrogate": champion.to_config(), "metrics": defended.metrics},
        "challenger": {"surrogate": challenger.to_config(), "metrics": challenged.metrics},
        "challenger_is_better": promoted,
        "advantage": {"mean_log_density": float(advantage.mean()), "standard_error": error},
        "n_duplicates": study.n_duplicates,
        "trials": [
            {"number": t.number, **t.params, "nlpd": None if t.status == "failed" else t.value, "reason": t.reason}
            for t in study.trials
        ],
        "evaluations": table,
    }
    new, proposals = everything.take(range(samples.n_samples, everything.n_samples)), optimum["evaluations"] + table
    if settings.problem.is_offline:  # nothing but a prediction recommends a design: the better spec's
        new, proposals = (found.evaluations, table) if promoted else (evaluations, optimum["evaluations"])
    recommendation = {
        "best_sample": optimum["best_sample"],
        **_outcome(samples, new, proposals, sign),
        "surrogate": final.spec.to_config(),
        "challenger_is_better": promoted,
        "gates_passed": not failed,
        "failed_gates": failed,
        **_counts(everything),
    }
    return {
        TUNED_EVALUATIONS: found.evaluations.to_bytes(),
        **_in_folder(CHAMPION, surrogate_files(final)),
        TUNING: _json(tuning),
        RECOMMENDATION: _json(recommendation),
    }


BODIES: dict[str, Callable[[Workspace, str, Progress], StageFiles]] = {
    body.__name__: body for body in (collect, fit, validate, optimize, tune)
}

Evaluate = Callable[[np.ndarray, str, Progress, int, int], Dataset]


@contextmanager
def _evaluation(
    workspace: Workspace, space: SearchSpace, stage: str, key: str, before: Dataset | None = None
) -> Iterator[Evaluate]:
    """Evaluates points under a stage's journal; offline, they stay pending.

    Raises:
        BadInput: what is called cannot be imported or started.
        StageFailed: all evaluations failed, for a reason of which no row before died: what is called is out of order;
            or a worker was killed as it started.
    """
    problem, execution = workspace.settings.problem, workspace.settings.execution.spec
    if problem.is_offline:
        yield lambda X, *_: Dataset(X, np.full(len(X), np.nan), space, np.full(len(X), "pending"))
        return
    black_box = problem.black_box(workspace.root, workspace.unversioned / "evaluations")
    output = OutputLog(workspace.unversioned / "black-box.log")
    tried: list[Dataset] = []
    with (
        _journal(workspace, stage, key) as journal,
        Evaluator(black_box, execution, problem.timeout, problem.retries, journal, output) as evaluator,
    ):

        def evaluate(X: np.ndarray, label: str, progress: Progress, before: int, total: int) -> Dataset:
            def on_progress(done: int, _: int) -> None:
                progress(before + done, total, "evaluations")

            try:
                rows = evaluate_points(evaluator, space, X, label, sign=problem.sign, on_progress=on_progress)
            except WorkerNotStarted as error:
                if error.killed:
                    raise StageFailed(
                        f"{stage}: problem.{problem.kind} could not be started: {error.reason}"
                    ) from error
                raise BadInput(f"problem.{problem.kind}: {error.reason.removeprefix('ValueError: ')}") from error
            tried.append(rows)
            return rows

        if execution.kind != "processes":  # whose workers find out as they start
            try:
                black_box.check()
            except ValueError as error:
                raise BadInput(f"problem.{problem.kind}: {error}") from error
        yield evaluate
        status, reason = (np.concatenate([getattr(rows, name) for rows in tried]) for name in ("status", "reason"))
        known = set() if before is None else {_kind(one) for one in before.reason}
        if len(status) and (status == "failed").all() and not known & {_kind(one) for one in reason}:
            for name, record in list(journal.ended.items()):
                if record.get("status") == "failed":
                    journal.drop(name)  # so that the next run tries it again
            told = f"; what it printed is in {output.path}" if output.path.exists() else ""
            raise StageFailed(f"{stage}: all {len(status)} evaluations failed, the first with: {reason[0]}{told}")


def _kind(reason: str) -> str:
    """What a reason is of, whatever numbers it tells."""
    return re.sub(r"[\d.eE+-]+", "#", reason)


@contextmanager
def _journal(workspace: Workspace, stage: str, key: str) -> Iterator[Journal]:
    try:
        journal = Journal(workspace.journal(stage, key))
    except ValueError as error:
        raise StageFailed(str(error)) from error
    if journal.damaged:
        _logger.warning("%s: %d damaged lines skipped; what they told of is done again", journal.path, journal.damaged)
    with journal:
        yield journal


def _refine(
    workspace: Workspace,
    fitted: FittedSurrogate,
    dataset: Dataset,
    batches: list[int],
    seed: int,
    evaluate: Evaluate,
    progress: Progress,
) -> Refinement:
    def rows(number: int, X: np.ndarray) -> Dataset:
        return evaluate(X, f"round-{number}", progress, sum(batches[:number]), sum(batches))

    try:
        return refine(fitted, dataset, rows, workspace.settings.optimize.optimizer, batches=batches, seed=seed)
    except ConstraintFailed as error:
        raise StageFailed(f"problem.{error}") from error


def _proposals(found: Refinement, sign: float) -> list[dict[str, Any]]:
    """A row for each evaluation: what the surrogate predicted before it was measured, in the user's direction.

    No name is one of `_rounds`: DVC's plots join all tables of a file, row by row.
    """
    table = []
    for number, one in enumerate(found.rounds):
        for i in range(one.rows.n_samples):
            lower, upper = sorted((sign * one.lower[i], sign * one.upper[i]))
            ok = one.rows.status[i] == "ok"
            table.append(
                {
                    "proposed_in": number + 1,
                    "kappa": float(one.kappa[i]),
                    "predicted": float(sign * one.predicted[i]),
                    "predicted_lower": float(lower),
                    "predicted_upper": float(upper),
                    "objective": float(sign * one.rows.y[i]) if ok else None,
                    "reason": str(one.rows.reason[i]),
                    "params": one.rows.space.params(one.rows.X[i]),
                }
            )
    return table


def _rounds(table: list[dict[str, Any]], dataset: Dataset, sign: float) -> list[dict[str, Any]]:
    """A row a round: the promise of its first proposal, which follows the prediction alone, and the best so far."""
    best = dataset.y[dataset.best_index]
    rounds = []
    for number in dict.fromkeys(row["proposed_in"] for row in table):
        rows = [row for row in table if row["proposed_in"] == number]
        best = min([best, *(sign * row["objective"] for row in rows if row["objective"] is not None)])
        told = {"round": number, **_promise(rows[0]), "measured": rows[0]["objective"]}
        rounds.append({**told, "best_so_far": float(sign * best)})
    return rounds


def _design(dataset: Dataset, sign: float) -> dict[str, Any]:
    best = dataset.best_index
    return {"params": dataset.space.params(dataset.X[best]), "measured": float(sign * dataset.y[best])}


def _outcome(samples: Dataset, new: Dataset, table: list[dict[str, Any]], sign: float) -> dict[str, Any]:
    """The best design of all that was measured, what was promised of it, and what it gained on the best sample."""
    best_sample = samples.y[samples.best_index]
    ok, pending = (new.status == "ok").any(), (new.status == "pending").all()
    if pending and table and sign * table[0]["predicted"] < best_sample:
        return {
            "found_by": "surrogate",
            **_promise(table[0]),
            "params": table[0]["params"],
            "measured": None,
            "gain": None,
        }
    if not ok or new.y[new.best_index] >= best_sample:
        return {"found_by": "collect", "promised": None, **_design(samples, sign), "gain": 0.0}
    row = table[new.best_index]
    best = new.y[new.best_index]
    gain = float((best_sample - best) / abs(best_sample)) if best_sample else None
    return {"found_by": "surrogate", **_promise(row), **_design(new, sign), "gain": gain}


def _counts(rows: Dataset) -> dict[str, int]:
    """How many rows were evaluated, and how many gave nothing to learn from."""
    counts = {status: int((rows.status == status).sum()) for status in STATUSES}
    return {
        "n_evaluations": rows.n_samples - counts["pending"],
        "n_failed": counts["failed"],
        "n_infeasible": counts["infeasible"],
    }


def _promise(row: dict[str, Any]) -> dict[str, float]:
    """What a row of `_proposals` promised."""
    return {"promised": row["predicted"], "lower": row["predicted_lower"], "upper": row["predicted_upper"]}


def _failed_gates(workspace: Workspace) -> list[str]:
    gates = read_json(workspace, VALIDATION)["gates"]
    return [f"{g['name']} {g['bound']:g} (it is {g['value']:.3g})" for g in gates if not g["passed"]]


def _in_folder(folder: str, files: StageFiles) -> StageFiles:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _json(report: Any) -> bytes:
    return orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n"
