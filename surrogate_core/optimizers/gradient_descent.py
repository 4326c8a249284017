"""Projected gradient descent in the unit cube by optax's Adam; one compiled program for any number of starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

Objective = Callable[..., Array]


class Descent(NamedTuple):
    """Where each start ended: the best point it met, its value, and the best value so far after each iteration."""

    U: Array
    values: Array
    history: Array


@dataclass(frozen=True)
class GradientDescentOptimizer:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with a cosine decay of the rate, projected on the unit cube.

    Args:
        learning_rate: the first step's length in unit-cube units.
        max_iterations: steps.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "gradient_descent"
    learning_rate: float = 0.05
    max_iterations: int = 150

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate: expected a number in (0, 1], got {self.learning_rate!r}")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations: expected an integer >= 1, got {self.max_iterations!r}")

    def descend(self, objective: Objective, starts: Array, arguments: Any) -> Descent:
        """Follows `jax.grad` of `objective(u, arguments)` from each of the starts, (S, d)."""
        rule = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.max_iterations, alpha=1e-3))
        value_and_grad = jax.value_and_grad(objective)

        def step(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], Array]:
            u, memory, best_u, best = carry
            value, gradient = value_and_grad(u, arguments)
            better = value < best
            best_u, best = jnp.where(better, u, best_u), jnp.where(better, value, best)
            update, memory = rule.update(gradient, memory, u)
            u = optax.projections.projection_box(optax.apply_updates(u, update), 0.0, 1.0)
            return (u, memory, best_u, best), best

        def one(start: Array) -> Descent:
            carry = (start, rule.init(start), start, jnp.inf)
            (u, _, best_u, best), history = jax.lax.scan(step, carry, None, length=self.max_iterations)
            last = objective(u, arguments)
            return Descent(jnp.where(last < best, u, best_u), jnp.minimum(last, best), history)

        return jax.vmap(one)(starts)
