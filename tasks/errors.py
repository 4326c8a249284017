"""Errors that a user can mend: one line that names the field, what was expected and what came, and an exit status."""


class UserError(Exception):
    """Shown as its one line, without a traceback."""

    exit_status = 1


class BadInput(UserError, ValueError):
    """What was given cannot be worked with; nothing has been done."""

    exit_status = 2


class StageFailed(UserError, RuntimeError):
    """A stage could not do its work."""
