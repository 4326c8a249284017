"""Which parameters a study's values depended on.

Source: Hutter, Hoos & Leyton-Brown (2014), "An efficient approach for assessing hyperparameter importance" (fANOVA):
the share of the variance, over the space, of a random forest's prediction that a parameter explains by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import create_trial

from surrogate_core.tuning.samplers import silent
from surrogate_core.tuning.space import TuningSpace
from surrogate_core.tuning.trials import Trial
from surrogate_core.validation.metrics import finite

FEWEST = 8  # trials from which something can be said
MOST = 400  # trials that are looked at, spread over the study: a forest of more says little more


def importances(space: TuningSpace, trials: Sequence[Trial], sign: float = 1.0, seed: int = 0) -> dict[str, float]:
    """fANOVA: a parameter's name to its share, from 0 to 1, the greatest first; the rest is in how they act together.

    Those of a branch are judged by the trials that took it. What is much worse than most is drawn in (Tukey's fence):
    else it would be all that is explained.

    Args:
        space: of the designs.
        trials: of which those that ended well count; empty where there are fewer than FEWEST, or all are alike.
        sign: 1 where the least value is best, -1 where the greatest is.
        seed: of the forest.
    """
    from optuna.importance import FanovaImportanceEvaluator  # imports scikit-learn's forests

    ok = [trial for trial in trials if trial.status == "ok"]
    ok = [ok[i] for i in np.linspace(0, len(ok) - 1, min(len(ok), MOST)).astype(int)]
    if len(ok) < FEWEST:
        return {}
    values = sign * np.array([trial.value for trial in ok])
    q25, q75 = np.quantile(values, [0.25, 0.75])
    values = np.minimum(values, q75 + 1.5 * (q75 - q25))
    raws = [space.raw(trial.params) for trial in ok]
    branches = Counter(tuple(raw) for raw in raws)
    found: dict[str, float] = {}
    with silent():
        study = optuna.create_study()
        for raw, value in zip(raws, values.tolist(), strict=True):
            of = {name: space.leaves[name].distribution for name in raw}
            study.add_trial(create_trial(params=raw, distributions=of, value=value))
        common = tuple(name for name in raws[0] if all(name in raw for raw in raws))
        for names, n in [(common, len(raws)), *branches.most_common()]:
            if n >= FEWEST and not found.keys() >= set(names):
                try:
                    told = FanovaImportanceEvaluator(seed=seed).evaluate(study, params=list(names))
                except RuntimeError:  # the values are all alike
                    continue
                found |= {name: finite(told[name]) for name in names if name not in found}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
