"""How often the verdicts on a design are right, and what is gained by correcting promises for disappointment.

    python -m benchmarks.trust [--fresh]

20 problems, two seeds, few and many samples. Before each measurement of a minimizer of the prediction its verdict is
noted; a design is good where it is better than the best sample so far. After four rounds the verdict on what was
measured is noted, and whether the surrogate's next promise is kept. The prior of `surrogate_core.trust` was learned on
the same problems with other seeds. Finished rows are kept, so a run that was stopped goes on.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.offline import TASKS, problem
from benchmarks.rows import ROOT, journal, judged, options, row, sources
from surrogate_core import Dataset, GPSurrogate, MultiStartOptimizer
from surrogate_core.refinement import refine
from surrogate_core.sampling import feasible_sample
from surrogate_core.trust import SIDE, VERDICTS, assess_measured, verdict_of
from surrogate_core.validation.cross_validation import cross_validate
from tasks.machine import machine
from tasks.proposals import errors_of, promise_in, proposals

SEEDS = (2, 3)
SIZES = {"few": 4, "many": 25}  # samples a variable
MOST, ROUNDS, EACH = 200, 4, 4
FEWEST = 50  # designs of which rates are judged


def measure(name: str, seed: int, each: int) -> dict[str, Any]:
    """The verdicts of one run, and what came of them."""
    made = problem(name, seed)
    space, optimizer, spec = made.space, MultiStartOptimizer(), GPSurrogate()

    def evaluated(X: np.ndarray) -> Dataset:
        return Dataset(X, np.array([made(space.params(x)) for x in X]), space)

    n = min(each * space.n_dims, MOST)
    data = evaluated(space.decode(feasible_sample(space, "sobol", n, seed)))
    r2 = cross_validate(spec, data, 5, seed).metrics["r2"]
    fitted = spec.fit(data, jax.random.key(seed))
    found = refine(fitted, data, lambda _, X: evaluated(X), optimizer, batches=[EACH] * ROUNDS, seed=seed)
    table, best, firsts = proposals(found, data, 1.0, r2), float(data.y.min()), []
    for number in range(ROUNDS):
        rows = [told for told in table if told["proposed_in"] == number + 1]
        value = rows[0]["objective"]
        firsts.append(
            {
                "probability": rows[0]["probability"],
                "is_better": value < best,
                "held": rows[0]["predicted_lower"] <= value <= rows[0]["predicted_upper"],
                "held_corrected": rows[0]["corrected_lower"] <= value <= rows[0]["corrected_upper"],
            }
        )
        best = min([best, *(told["objective"] for told in rows)])
    return {"n": n, "r2": r2, "firsts": firsts, **_after(found, data, table, optimizer, evaluated, seed)}


def _after(found: Any, data: Dataset, table: Any, optimizer: Any, evaluated: Any, seed: int) -> dict[str, Any]:
    """The verdict on the best that was measured, and whether the next promise is kept."""
    errors, new = errors_of(table), found.evaluations
    chosen = table[new.best_index]
    best, value = float(data.y.min()), float(new.y.min())
    promise = promise_in(chosen) if value < best else None
    known: dict[str, Any] = {"best": best, "extrapolation": None, "errors": errors}
    told = assess_measured(found.fitted, new.X[new.best_index], promise, value, **known)
    end = optimizer.optimize(found.fitted, seed=seed)
    expected = found.fitted.predictive(end.x)
    error = float(expected.standardized_error(evaluated(end.x[None]).y[0]))
    return {"verdict": told.verdict, "n_kept": told.n_kept, "next_kept": abs(error) <= SIDE}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """How often each verdict was right, whether all occur, and how often intervals held."""
    lines, firsts = [], [told for one in rows for told in one["firsts"]]
    rates = {}
    for verdict in reversed(VERDICTS):
        good = [told["is_better"] for told in firsts if verdict_of(told["probability"]) == verdict]
        rates[verdict] = float(np.mean(good)) if good else np.nan
        lines.append(f"{verdict:11s} said of {len(good):3d} designs before they were measured, {sum(good):3d} better")
    held, corrected = (float(np.mean([told[name] for told in firsts])) for name in ("held", "held_corrected"))
    met = rates["supported"] >= 0.85 and rates["unsupported"] <= 0.25
    met = met and rates["unsupported"] < rates["doubtful"] < rates["supported"] and 0.9 <= corrected <= 0.98
    told = (
        f"95 % intervals held {held:.1%}, corrected {corrected:.1%}; supported right {rates['supported']:.0%}, "
        f"unsupported wrong {rates['unsupported']:.0%}"
    )
    lines.append(judged(told, met if len(firsts) >= FEWEST else None))
    for verdict in reversed(VERDICTS):
        kept = [one["next_kept"] for one in rows if one["verdict"] == verdict]
        share = f"{np.mean(kept):.0%}" if kept else "-"
        lines.append(f"{verdict:11s} said of {len(kept):3d} runs once measured, the next promise was kept in {share}")
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a run, and how often the verdicts were right."""
    asked = options("benchmarks.trust", arguments)
    about = (sources(ROOT / "surrogate_core", ROOT / "tasks", ROOT / "benchmarks"), machine())
    print("each round: the probability that the first proposal is better, and whether it was (+ or -)\n")
    print(
        "problem         size seed    n     R²  rounds                                       kept  verdict       next"
    )
    rows = []
    with journal("trust", about, asked.fresh) as done:
        for seed in SEEDS[: 1 if asked.quick else None]:
            for name in list(TASKS)[: 3 if asked.quick else None]:
                for size, each in SIZES.items():
                    told = row(done, f"{name}/{size}/{seed}", partial(measure, name, seed, each))
                    rows.append(told)
                    rounds = "  ".join(
                        f"{one['probability']:6.1%} {'+' if one['is_better'] else '-'}" for one in told["firsts"]
                    )
                    print(
                        f"{name:15s} {size:4s} {seed:4d} {told['n']:4d} {told['r2']:6.2f}  {rounds}  "
                        f"{told['n_kept']:2d}/{ROUNDS * EACH}  {told['verdict']:12s}  "
                        f"{'kept' if told['next_kept'] else 'not kept'}",
                        flush=True,
                    )
    print(summary(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
