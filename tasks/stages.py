"""The five stages: what each computes of the files it reads, as the files it writes. Each is one thin Prefect task."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from surrogate_core.acquisition import Goal
from surrogate_core.collection import check_memory
from surrogate_core.collection import design as sampling_design
from surrogate_core.constraints import ConstraintFailed
from surrogate_core.dataset import Dataset
from surrogate_core.offline import learned_strength
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.performance.profiler import operation
from surrogate_core.refinement import Refinement, fit_or_standardize, refine
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.memory_budget import fit_within_memory
from surrogate_core.trust import VERDICTS
from surrogate_core.tuning.champion import duel
from surrogate_core.validation.calibration import recalibration
from surrogate_core.validation.cross_validation import cross_validate
from surrogate_core.validation.held_out import HeldOut
from tasks.errors import BadInput, StageFailed
from tasks.evaluations import Evaluate, Progress, evaluation
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
from tasks.outputs import config, read_dataset, read_json, read_model, specs, to_json
from tasks.proposals import counts, design, errors_of, outcome, proposals, report_of_trust, rounds, search_report
from tasks.settings import parse_spec
from tasks.tuning import search_specs
from tasks.validation import validate
from tasks.workspace import Workspace


def collect(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Places points by the sampling design and evaluates them, or reads a table of evaluations."""
    problem, asked = workspace.settings.problem, workspace.settings.collect
    if problem.is_offline:
        return {DATASET: problem.rows(workspace.root, 2 * workspace.settings.validate.folds).to_bytes()}
    space, budget = problem.search_space, workspace.settings.fit.memory_budget_mb
    assert space is not None
    try:
        check_memory(asked.n_samples, space.n_dims, budget, by_name=True)
    except ValueError as error:
        raise BadInput(f"collect.{error}") from error
    try:
        X = sampling_design(space, asked.sampling, asked.n_samples, asked.seed)
    except ValueError as error:
        raise BadInput(f"problem.{error}") from error
    with evaluation(workspace, space, "collect", key) as evaluate:
        rows = evaluate(X, "sample", progress, 0, len(X))
    if rows.ok.n_samples == 0:
        raise StageFailed(f"collect: none of {len(X)} evaluations can be learned from, the first for: {rows.reason[0]}")
    return {DATASET: rows.to_bytes()}


def fit(workspace: Workspace, key: str, progress: Progress) -> StageFiles:
    """Fits the champion spec to the dataset."""
    asked = workspace.settings.fit
    key_of_fit, path = jax.random.key(asked.seed), workspace.out / DATASET
    try:
        with operation("fit"):
            if asked.memory_budget_mb is None:
                fitted = asked.spec.fit(read_dataset(workspace, DATASET), key_of_fit)
            else:
                fitted = fit_within_memory(asked.spec, path, asked.memory_budget_mb, key_of_fit)
    except BadInput:  # a file that is damaged
        raise
    except ValueError as error:  # the data does not suit the spec
        where = "fit" if str(error).startswith("memory_budget_mb") else "fit.surrogate"
        raise StageFailed(f"{where}.{error}") from error
    return _in_folder(MODEL, surrogate_files(fitted))


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
    validation, model = read_json(workspace, VALIDATION), read_model(workspace, MODEL)
    learned, r2 = validation["recalibration"], validation["metrics"]["r2"]
    factor = learned["factor"] if learned["used"] else 1.0
    goal = _goal(workspace, model, dataset, asked.seed)
    with evaluation(workspace, dataset.space, "optimize", key, dataset) as evaluate:
        found = _refine(workspace, model, dataset, batches, asked.seed, factor, evaluate, progress, goal)
    sign = settings.problem.sign
    table = proposals(found, dataset, sign, r2)
    final = {"best_sample": design(dataset, sign), **outcome(dataset, found.evaluations, table, sign)}
    searched = _searched(workspace, found.fitted, goal, asked.seed)
    report = {
        **final,
        "trust": report_of_trust(found.fitted, final, table, r2=r2, searched=searched, problem=settings.problem),
        **counts(found.evaluations),
        **specs(found.fitted),
        "rounds": rounds(table, dataset, sign),
        "evaluations": table,
        "search": search_report(searched, found.fitted, goal, sign),
    }
    return {
        EVALUATIONS: found.evaluations.to_bytes(),
        **_in_folder(OPTIMIZED, surrogate_files(found.fitted)),
        OPTIMUM: to_json(report),
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
    if settings.gates.on_fail == "stop" and (distrusted := _failed_trust(workspace, optimum["trust"])):
        why = optimum["trust"]["why"]
        raise StageFailed(f"tune: the optimum fails {distrusted[0]}: {why}; measure more, or set gates.on_fail to warn")

    def check(spec: Surrogate) -> HeldOut:
        validate = settings.validate
        return cross_validate(spec, dataset, validate.folds, validate.seed, settings.execution.n_threads)

    tuned = search_specs(workspace, key, champion, dataset, progress)
    challenger = tuned.challenger
    defended, challenged = check(champion), check(challenger)
    fought = duel(
        champion, challenger, dataset, settings.validate.folds, settings.validate.seed, settings.execution.n_threads
    )

    per_round = settings.optimize.evaluations_per_round
    batches = [min(per_round, asked.evaluations - done) for done in range(0, asked.evaluations, per_round)]
    if settings.problem.is_offline:
        batches = [asked.evaluations]
    with operation("fit"):
        model = challenger.fit(dataset, jax.random.key(asked.fixed_seed))
    factor, goal = _factor(workspace, challenged), _goal(workspace, model, dataset, asked.fixed_seed)
    with evaluation(workspace, dataset.space, "tune", key, dataset) as evaluate:
        found = _refine(workspace, model, dataset, batches, asked.fixed_seed, factor, evaluate, progress, goal)
    everything = dataset.append(found.evaluations)
    fits = found.fitted.asked == challenger  # its transform has not been ruled out by what was measured
    promoted = challenger != champion and fits and fought.is_won
    winner = challenger if promoted else champion
    if winner == challenger:
        final = found.fitted
    else:
        final = fit_or_standardize(winner, everything, jax.random.key(asked.fixed_seed))
        final = final.recalibrated(_factor(workspace, defended))

    r2 = (challenged if winner == challenger else defended).metrics["r2"]
    table = proposals(found, dataset, sign, challenged.metrics["r2"], errors_of(optimum["evaluations"]))
    checked = read_json(workspace, VALIDATION)["gradient"]  # by evaluations that nothing is learned from
    tuning = {
        "champion": {"surrogate": config(champion), "metrics": defended.metrics},
        "challenger": {"surrogate": config(challenger), "metrics": challenged.metrics},
        "challenger_is_better": promoted,
        "advantage": {
            "mean_log_density": fought.advantage,
            "standard_error": fought.standard_error,
            "p_value": fought.p_value,
        },
        **tuned.report(),
        "evaluations": table,
    }
    new, proposed = everything.take(range(samples.n_samples, everything.n_samples)), optimum["evaluations"] + table
    if settings.problem.is_offline:  # nothing but a prediction recommends a design: the better spec's
        new, proposed = (found.evaluations, table) if promoted else (evaluations, optimum["evaluations"])
    come_to = {"best_sample": optimum["best_sample"], **outcome(samples, new, proposed, sign)}
    searched = _searched(workspace, final, goal, asked.fixed_seed)
    told = report_of_trust(final, come_to, proposed, r2=r2, searched=searched, problem=settings.problem)
    failed += _failed_trust(workspace, told)
    recommendation = {
        **come_to,
        "trust": told,
        **specs(final),
        "challenger_is_better": promoted,
        "gates_passed": not failed,
        "failed_gates": failed,
        **{name: n + checked.get(name, 0) for name, n in counts(everything).items()},
    }
    return {
        TUNED_EVALUATIONS: found.evaluations.to_bytes(),
        **_in_folder(CHAMPION, surrogate_files(final)),
        TUNING: to_json(tuning),
        RECOMMENDATION: to_json(recommendation),
    }


BODIES: dict[str, Callable[[Workspace, str, Progress], StageFiles]] = {
    body.__name__: body for body in (collect, fit, validate, optimize, tune)
}


def _refine(
    workspace: Workspace,
    fitted: FittedSurrogate,
    dataset: Dataset,
    batches: list[int],
    seed: int,
    calibration: float,
    evaluate: Evaluate,
    progress: Progress,
    goal: Goal,
) -> Refinement:
    def rows(number: int, X: np.ndarray) -> Dataset:
        return evaluate(X, f"round-{number}", progress, sum(batches[:number]), sum(batches))

    optimizer = workspace.settings.optimize.multi_start
    try:
        return refine(fitted, dataset, rows, optimizer, batches=batches, seed=seed, calibration=calibration, goal=goal)
    except ConstraintFailed as error:
        raise StageFailed(f"problem.{error}") from error


def _goal(workspace: Workspace, fitted: FittedSurrogate, dataset: Dataset, seed: int) -> Goal:
    """Of what is proposed first."""
    asked = workspace.settings.optimize
    name = asked.goal_name(workspace.settings.problem.is_offline)
    kappa = asked.kappa
    if kappa is None:
        is_learned = name == "conservative"
        kappa = learned_strength(fitted, dataset.ok, asked.multi_start, seed).kappa if is_learned else 1.0
    return Goal(name, kappa)


def _searched(workspace: Workspace, fitted: FittedSurrogate, goal: Goal, seed: int) -> OptimizationResult:
    """Where starts lead on the surrogate that has learned all; the mean by the program that the rounds compiled."""
    same = Goal("cautious", 0.0) if goal.name == "mean" else goal
    return workspace.settings.optimize.multi_start.optimize(fitted, goal=same, seed=seed)


def _failed_trust(workspace: Workspace, told: dict[str, Any]) -> list[str]:
    """The gate on the verdict of a report of trust, if it failed."""
    asked, verdict = workspace.settings.gates.trust, told["verdict"]
    is_met = asked is None or VERDICTS.index(verdict) >= VERDICTS.index(asked)
    return [] if is_met else [f"trust {asked} (it is {verdict})"]


def _factor(workspace: Workspace, held_out: HeldOut) -> float:
    """By which a spec's standard deviations are multiplied, as its own cross-validation teaches."""
    learned = recalibration(held_out)
    return learned.factor if workspace.settings.validate.recalibrate and learned.helps else 1.0


def _failed_gates(workspace: Workspace) -> list[str]:
    def got(gate: dict[str, Any]) -> str:
        return "it was not measured" if gate["value"] is None else f"it is {gate['value']:.3g}"

    gates = read_json(workspace, VALIDATION).get("gates", [])
    return [f"{gate['name']} {gate['bound']:g} ({got(gate)})" for gate in gates if not gate["passed"]]


def _in_folder(folder: str, files: StageFiles) -> StageFiles:
    return {f"{folder}/{name}": content for name, content in files.items()}
