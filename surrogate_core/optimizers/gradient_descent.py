"""Projected gradient descent by any of optax's rules, with a schedule and an adaptive rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from surrogate_core.optimizers.local import Box, LocalOptimizer, Move, Point
from surrogate_core.optimizers.status import Status

LEAST_RATE, LARGEST_RATE = 1e-6, 1.0

# fmt: off
_OF_OPTAX = (
    "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "lamb", "lars",
    "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "radam", "rmsprop", "sgd", "sign_sgd", "sm3",
    "yogi",
)
# fmt: on
# Those whose step is proportional to the rate, which a schedule and the adaptive rate rely on.
RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    **{name: getattr(optax, name) for name in _OF_OPTAX},
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
}

# Of the rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, n: optax.constant_schedule(rate),
    "cosine": lambda rate, n: optax.cosine_decay_schedule(rate, n, alpha=1e-3),
    "exponential": lambda rate, n: optax.exponential_decay(rate, n, 1e-3),
    "linear": lambda rate, n: optax.linear_schedule(rate, 1e-3 * rate, n),
    "one_cycle": lambda rate, n: optax.cosine_onecycle_schedule(n, rate),
    "warmup_cosine": lambda rate, n: optax.warmup_cosine_decay_schedule(0.1 * rate, rate, n // 10, n, 1e-3 * rate),
}


class Memory(NamedTuple):
    """The rule's state, what the adaptive rate has come to, and steps so far, of which optax makes float32 if whole."""

    rule: Any
    factor: Array
    n: Array


@dataclass(frozen=True)
class GradientDescentOptimizer(LocalOptimizer):
    """A step down the gradient, projected on the bounds, in each iteration.

    The rate is the schedule's times what adaption has come to. With `adaptive_lr`, a step that improved the value by
    more than `good_improvement` multiplies it by `grow`, one that improved it by less than `poor_improvement` by
    `shrink`; rates stay within [1e-6, 1]. The best point met is what counts, so that a step may overshoot.

    Args:
        max_iterations, tolerance, patience, min_improvement: see `LocalOptimizer`.
        learning_rate: the first, or of a warm-up or cycle the largest, in unit-cube units.
        rule: of optax, such as "adam" (Kingma & Ba 2015, arXiv:1412.6980), "sgd", "adamw" (whose decay is towards the
            middle of the cube) or "lion"; "momentum" and "nesterov" are sgd with momentum 0.9.
        schedule: "cosine", "constant", "exponential", "linear", "one_cycle" or "warmup_cosine", over max_iterations.
        adaptive_lr: whether the rate follows what steps have brought.
        good_improvement, poor_improvement, grow, shrink: by which rules.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "gradient_descent"
    learning_rate: float = 0.05
    rule: str = "adam"
    schedule: str = "cosine"
    adaptive_lr: bool = False
    good_improvement: float = 1e-3
    poor_improvement: float = 1e-6
    grow: float = 1.05
    shrink: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate <= LARGEST_RATE:
            raise ValueError(f"learning_rate: expected a number in (0, 1], got {self.learning_rate!r}")
        for name, known in (("rule", RULES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(sorted(known))}, got {getattr(self, name)!r}")
        if not 0 <= self.poor_improvement <= self.good_improvement:
            raise ValueError(
                f"poor_improvement: expected a number in [0, good_improvement = {self.good_improvement:g}], "
                f"got {self.poor_improvement!r}"
            )
        if not self.grow >= 1:
            raise ValueError(f"grow: expected a number >= 1, got {self.grow!r}")
        if not 0 < self.shrink <= 1:
            raise ValueError(f"shrink: expected a number in (0, 1], got {self.shrink!r}")

    @property
    def max_turns(self) -> int:
        return self.max_iterations + 1

    @property
    def _rule(self) -> optax.GradientTransformation:
        return RULES[self.rule](learning_rate=1.0)

    def begin(self, u: Array) -> Memory:
        return Memory(self._rule.init(u), jnp.ones(()), jnp.zeros(()))

    def advance(self, memory: Memory, point: Point, trial: Point, box: Box) -> Move:
        improvement, factor = point.value - trial.value, memory.factor
        scheduled = SCHEDULES[self.schedule](self.learning_rate, self.max_iterations)(memory.n)
        if self.adaptive_lr:
            change = jnp.where(improvement > self.good_improvement, self.grow, 1.0)
            change = jnp.where(improvement < self.poor_improvement, self.shrink, change)
            factor = factor * jnp.where(jnp.isinf(point.value), 1.0, change)
        rate = jnp.clip(scheduled * factor, LEAST_RATE, LARGEST_RATE)
        factor = jnp.clip(factor, LEAST_RATE / self.learning_rate, LARGEST_RATE / self.learning_rate)
        step, rule = self._rule.update(trial.gradient, memory.rule, trial.u - 0.5)
        status = jnp.where(jnp.isfinite(trial.value), Status.RUNNING, Status.NOT_FINITE)
        to = box.clip(trial.u + rate * step)
        return Move(trial, to, Memory(rule, factor, memory.n + 1), rate, jnp.bool_(True), status)
