"""How far a design that a surrogate found can be believed: numbers, and one sentence that a gate can demand.

A minimizer of a prediction lies where the prediction errs to its favour, so its measurement disappoints: the
optimizer's curse. Its size is learned. In standard deviations, errors of promised designs are e ~ N(b, c^2), with a
prior that depends on how much of held-out values the surrogate explains; each design that is measured updates it, and
the next error follows Student's t distribution. What is promised is corrected by b, and its interval is that of t.

Sources: Smith & Winkler (2006), "The optimizer's curse", Management Science 52, 311; Gelman et al. (2013), Bayesian
Data Analysis, section 3.3, the normal model with its conjugate prior. The prior's numbers were learned on the 20
problems of `benchmarks/trust.py`, with other seeds than those by which that tells how often the verdicts are right.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from scipy.special import stdtr, stdtrit

from surrogate_core.surrogates.base import FittedSurrogate, evaluate, program
from surrogate_core.surrogates.output import Output, from_latent, to_latent
from surrogate_core.surrogates.predictive import Predictive

Verdict = Literal["supported", "doubtful", "unsupported"]
VERDICTS: tuple[Verdict, ...] = ("unsupported", "doubtful", "supported")

SURE, EVEN = 0.9, 0.5  # probabilities of an improvement from which a design is supported, or at least doubtful
KEPT = 0.75  # the share of 95 % intervals that must have held for the surrogate's word to be worth something
SIDE = 1.959963984540054  # standard deviations of a 95 % interval
LARGEST = 4.0  # error that counts
EDGE = 1e-9  # in unit-cube units, within which a design is at a bound: what decoding and encoding leave of it
SAME_MEAN, SAME_SCALE = 4, 8  # errors that the prior of b and that of c weigh as much as


class Disappointment(NamedTuple):
    """What is known of the next standardized error of promised designs: Student's t; (n,) or scalars."""

    center: Any
    scale: Any
    freedom: float

    @property
    def side(self) -> Any:
        """Half of a 95 % interval, in standard deviations of the surrogate."""
        return self.scale * stdtrit(self.freedom, 0.975)

    def probability(self, expected: Predictive, best: float) -> Any:
        """That a measurement of what is expected is below the best value."""
        z = expected.standardized_error(np.asarray(best))
        return stdtr(self.freedom, (z - self.center) / self.scale)


class Promise(NamedTuple):
    """What was expected of designs before they were measured, in the problem's direction; (n,) or scalar.

    Args:
        predicted, lower, upper: mean and 95 % interval of a measurement, as the surrogate tells them.
        corrected, corrected_lower, corrected_upper: the same, corrected for the disappointment.
    """

    predicted: Any
    lower: Any
    upper: Any
    corrected: Any
    corrected_lower: Any
    corrected_upper: Any

    @classmethod
    def of(cls, expected: Predictive, known: Disappointment, sign: float = 1.0) -> "Promise":
        """Of what is expected, when so much was known of disappointment; the sign is -1 where it was turned round."""
        shift, side = known.center * expected.s, known.side * expected.s
        turned = replace(expected, m=expected.m + shift)
        edges = [from_latent(expected.transform, expected.output, turned.m + by * side) for by in (-sign, sign)]
        raw = expected.interval()[:: int(sign)]
        return cls(*(sign * part for part in (expected.mean, *raw, turned.mean, *edges)))


@dataclass(frozen=True)
class Trust:
    """What speaks for a design and against it, in the problem's units and direction.

    Args:
        verdict: "supported", "doubtful" or "unsupported": of a design that was not measured, whether a measurement will
            be better than the best sample; of one that was, whether it is, as promised, by a surrogate that keeps most
            of its promises.
        why: in words.
        promise: what the surrogate said of it; None of a sample.
        disappointment: by how many standard deviations promised designs turn out worse, as held-out rows and the
            designs measured so far tell.
        probability: of a measurement better than the best sample, so corrected; None once it was measured.
        measured: None where it was not.
        n_verified, n_kept: designs that were promised and measured, and how many of them lay in their 95 % interval.
        r2: share of the variance of held-out values that the surrogate explains; None where it is not known.
        extrapolation: distance from the data, the edge of which is at 1.
        gradient_norm: of the standardized prediction in unit-cube units, without what points out of the bounds; 0 at a
            minimum.
        hessian_condition: largest over least curvature there, of the continuous variables that are not at a bound;
            infinite where the prediction does not curve upwards in all of them, None where there are none.
        agreement: share of the starts that came to the design.
    """

    verdict: Verdict
    why: str
    promise: Promise | None
    disappointment: float
    probability: float | None
    measured: float | None
    n_verified: int
    n_kept: int
    r2: float | None
    extrapolation: float | None
    gradient_norm: float | None
    hessian_condition: float | None
    agreement: float | None

    def __str__(self) -> str:
        return f"{self.verdict}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them: None for what is not finite."""
        told = asdict(self)
        promise = told.pop("promise") or Promise(*(None,) * 6)
        told |= promise._asdict()
        plain = {name: v.item() if isinstance(v, np.generic | np.ndarray) else v for name, v in told.items()}
        return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in plain.items()}


def verdict_of(probability: float) -> Verdict:
    """On a design that was not measured, by the probability of an improvement."""
    return VERDICTS[(probability >= EVEN) + (probability >= SURE)]


def disappointment(r2: float | None = None, errors: Sequence[float] = (), kappa: Any = 0.0) -> Disappointment:
    """By how many standard deviations promised designs will turn out worse.

    Args:
        r2: of held-out values; None, as 0, where it is not known.
        errors: (k,) standardized errors of promised designs that were measured.
        kappa: standard deviations, (n,) or scalar, that were added to the mean in the search; who is so cautious is
            disappointed less.
    """
    unknown = 1 - min(max(r2 or 0.0, 0.0), 1.0)
    b, squares = unknown * np.clip(1 - np.asarray(kappa), 0.0, 1.0), SAME_SCALE * (1 + unknown / 2) ** 2
    e, n = np.clip(np.asarray(errors, dtype=float), -LARGEST, LARGEST), len(errors)
    freedom = SAME_SCALE + n
    if n:
        squares = squares + ((e - e.mean()) ** 2).sum() + SAME_MEAN * n / (SAME_MEAN + n) * (e.mean() - b) ** 2
        b = (SAME_MEAN * b + n * e.mean()) / (SAME_MEAN + n)
    scale = np.sqrt(squares / freedom * (1 + 1 / (SAME_MEAN + n)))
    return Disappointment(np.maximum(b, 0.0), np.maximum(scale, 1.0), freedom)


def assess(
    surrogate: Any,
    x: np.ndarray,
    *,
    best: float | None = None,
    r2: float | None = None,
    errors: Sequence[float] = (),
    kappa: float = 0.0,
    agreement: float | None = None,
    box: np.ndarray | None = None,
    violation: float = 0.0,
    sign: float = 1.0,
) -> Trust:
    """Of a design that was not measured.

    Args:
        surrogate: fitted; of another object with `predict`, and perhaps `uncertainty`, less can be told.
        x: (d,) in the problem's units.
        best: the value to be improved on; by default the least that the surrogate predicts of its rows.
        r2, errors, kappa: see `disappointment`; r2 comes from cross-validation.
        agreement: share of the starts that came there.
        box: (d, 2) unit-cube bounds of the search; by default the cube.
        violation: by how much known constraints are not met.
        sign: -1 where the problem maximizes and the surrogate learned -y: all that is told is in its direction.
    """
    expected = expected_at(surrogate, x)
    if best is None and isinstance(surrogate, FittedSurrogate):
        best = surrogate.incumbent
    known = disappointment(r2, errors, kappa)
    probability = float(known.probability(expected, np.nan if best is None else best))
    evidence = _evidence(surrogate, x, errors, r2, agreement, box)
    if violation > 0:
        verdict, why = VERDICTS[0], f"known constraints are missed by {violation:.3g}"
    elif best is None or np.isnan(expected.s):
        verdict, why = VERDICTS[1], "it was not measured, and the surrogate tells too little of itself"
    else:
        verdict = verdict_of(probability)
        odds = f"{100 * min(max(probability, 0.01), 0.99):.0f} %{' or less' * (probability < 0.01)}"
        odds += " or more" * (probability > 0.99)
        why = f"a value better than the best sample, {sign * best:.4g}, is probable to {odds}"
        why = "; ".join([why, *_remarks(evidence)])
    promise = Promise._make(map(float, Promise.of(expected, known, sign)))
    return Trust(verdict, why, promise, float(known.center), probability, None, **evidence)


def assess_measured(
    surrogate: Any,
    x: np.ndarray,
    promise: Promise | None,
    measured: float,
    *,
    best: float,
    extrapolation: float | None,
    errors: Sequence[float],
    r2: float | None = None,
    agreement: float | None = None,
    box: np.ndarray | None = None,
    violation: float = 0.0,
    sign: float = 1.0,
) -> Trust:
    """Of a design that was measured; `promise`, `measured` and `best` are in the problem's direction.

    Args:
        surrogate: fitted; another object tells nothing of noise and shape.
        x: (d,) in the problem's units.
        promise: what was said of it; None of the best sample, where no design that was promised is better.
        measured: what came of it; NaN where nothing did.
        best: the best of the samples, before any design was promised.
        extrapolation: how far it was from the data when it was promised.
        errors: (k,) standardized errors of all promised designs that were measured, this one's among them.
        r2, agreement, box, violation, sign: see `assess`.
    """
    evidence = {**_evidence(surrogate, x, errors, r2, agreement, box), "extrapolation": extrapolation}
    n_kept, n, center = evidence["n_kept"], len(errors), float(disappointment(r2, errors).center)
    told, kept = f"measured {measured:.4g}, the best sample {best:.4g}", f"{n_kept} of {n} promises were kept"
    if violation > 0:
        verdict, why = VERDICTS[0], f"known constraints are missed by {violation:.3g}"
    elif promise is None and n == 0:
        verdict, why = VERDICTS[0], f"no promised design gave a value; the best sample, {best:.4g}, stays"
    elif promise is None:
        why = f"none of {n} promised designs that were measured is better than the best sample, {best:.4g}"
        verdict = VERDICTS[0]
    elif not np.isfinite(measured):
        verdict, why = VERDICTS[0], "nothing could be measured"
    elif sign * measured >= sign * best:
        verdict, why = VERDICTS[0], f"{told}: no improvement"
    elif n == 0:
        verdict, why = VERDICTS[1], f"{told}: an improvement, but the surrogate had told too little of itself"
    elif _is_noise(surrogate, sign * measured, sign * best):
        verdict, why = VERDICTS[1], f"{told}: an improvement within the noise of measurements; {kept}"
    elif sign * measured > max(sign * promise.lower, sign * promise.upper):
        verdict, why = VERDICTS[1], f"{told}: an improvement, but less than was promised; {kept}"
    elif n_kept < KEPT * n:
        verdict, why = VERDICTS[1], f"{told}: an improvement, but only {kept}"
    else:
        verdict, why = VERDICTS[2], f"{told}; {kept}"
    return Trust(verdict, why, promise, center, None, measured, **evidence)


def _is_noise(surrogate: Any, value: float, best: float) -> bool:
    """Whether two measurements differ by no more than noise does."""
    if not isinstance(surrogate, FittedSurrogate):
        return False
    spec, state = surrogate.spec, surrogate.state
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN of a value that the transform rules out
        z = to_latent(spec.transform, state.output, np.array([value, best]))
    return bool(z[1] - z[0] < SIDE * np.sqrt(2 * np.asarray(spec.noise(state))))


def expected_at(surrogate: Any, x: np.ndarray) -> Predictive:
    """Of one point; of a surrogate that is not ours a normal distribution, of unknown width if it tells none."""
    if isinstance(surrogate, FittedSurrogate):
        return surrogate.predictive(x)
    std = surrogate.uncertainty(x[None]) if hasattr(surrogate, "uncertainty") else [np.nan]
    m, v = np.asarray(surrogate.predict(x[None]))[0], np.asarray(std)[0] ** 2
    return Predictive("standardize", Output(np.float64(0.0), np.float64(1.0)), m, v, np.zeros(()))


def _evidence(
    surrogate: Any,
    x: np.ndarray,
    errors: Sequence[float],
    r2: float | None,
    agreement: float | None,
    box: np.ndarray | None,
) -> dict[str, Any]:
    is_ours = isinstance(surrogate, FittedSurrogate)
    slope, condition = shape_at(surrogate, x, box) if is_ours else (None, None)
    return {
        "n_verified": len(errors),
        "n_kept": int((np.abs(np.asarray(errors, dtype=float)) <= SIDE).sum()),
        "r2": r2,
        "extrapolation": float(surrogate.extrapolation(x)) if is_ours else None,
        "gradient_norm": slope,
        "hessian_condition": condition,
        "agreement": agreement,
    }


def _remarks(evidence: dict[str, Any]) -> list[str]:
    """What is out of the ordinary, or was measured."""
    told = []
    if evidence["r2"] is not None and evidence["r2"] < 0.5:
        told.append(f"the surrogate explains {100 * max(evidence['r2'], 0):.0f} % of held-out values")
    if evidence["n_verified"]:
        told.append(f"{evidence['n_kept']} of {evidence['n_verified']} promises were kept")
    if evidence["extrapolation"] is not None and evidence["extrapolation"] > 1:
        told.append(f"it is beyond the data, at {evidence['extrapolation']:.1f} times the distance of their edge")
    return told


def shape_at(fitted: FittedSurrogate, x: np.ndarray, box: np.ndarray | None = None) -> tuple[float, float | None]:
    """Size of the projected gradient, and condition of the Hessian, of the standardized mean; see `Trust`."""
    u, space = fitted.space.encode(x), fitted.space
    low, high = (0.0, 1.0) if box is None else box.T
    moves = np.array([np.isinf(variable.n_values) for variable in space.variables])
    gradient, hessian = evaluate(_shape, fitted.spec, space, fitted.state, x)
    at_low, at_high = u <= low + EDGE, u >= high - EDGE
    outward = (at_low & (gradient > 0)) | (at_high & (gradient < 0))
    free = moves & ~at_low & ~at_high
    slope = float(np.linalg.norm(gradient[moves & ~outward]))
    if not free.any():
        return slope, None
    curvatures = np.linalg.eigvalsh(hessian[np.ix_(free, free)])
    return slope, float(curvatures[-1] / curvatures[0]) if curvatures[0] > 0 else float("inf")


def _of_mean(spec: Any, state: Any, u: Any) -> Any:
    return spec.standardized(state, u)[0]


_shape = program(
    lambda spec, state, u: (
        jax.grad(_of_mean, argnums=2)(spec, state, u),
        jax.hessian(_of_mean, argnums=2)(spec, state, u),
    )
)
