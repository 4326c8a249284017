"""Why a start ended, as a number within compiled programs and as a message outside."""

from enum import IntEnum


class Status(IntEnum):
    """Why a start ended."""

    RUNNING = 0
    CONVERGED = 1
    STALLED = 2
    NO_IMPROVEMENT = 3
    MAX_ITERATIONS = 4
    LINE_SEARCH_FAILED = 5
    NOT_FINITE = 6
    MAX_EVALUATIONS = 7
    RADIUS_TOO_SMALL = 8
    INTERRUPTED = 9
    FAILED = 10

    @property
    def is_success(self) -> bool:
        """Whether it ended at what is taken for a minimum."""
        return self in (Status.CONVERGED, Status.STALLED, Status.NO_IMPROVEMENT, Status.RADIUS_TOO_SMALL)

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "not begun",
    Status.CONVERGED: "the projected gradient is below the tolerance",
    Status.STALLED: "a step brought less than rounding tells",
    Status.NO_IMPROVEMENT: "no improvement for as many iterations as patience allows",
    Status.MAX_ITERATIONS: "the limit of iterations was reached",
    Status.LINE_SEARCH_FAILED: "no step along the gradient lowers the value: it is not what the values say",
    Status.NOT_FINITE: "the value or the gradient is not finite",
    Status.MAX_EVALUATIONS: "the true function was called as often as it may be",
    Status.RADIUS_TOO_SMALL: "no step within the least radius lowers the true function",
    Status.FAILED: "the surrogate raised",
    Status.INTERRUPTED: "interrupted; what had been measured is kept",
}
