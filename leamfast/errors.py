"""The error of a request that cannot be carried out, and what to tell of the errors of others."""

__all__ = ["RequestError", "first_line"]


class RequestError(ValueError):
    """What the user asked for is wrong: one sentence with the argument, the rule, the value and the fix.

    The command line prints it and exits with status 2; anything else is a defect and keeps its traceback.
    """


def first_line(exc: BaseException) -> str:
    """The first line of an error's message that says something, or the error's kind."""
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
