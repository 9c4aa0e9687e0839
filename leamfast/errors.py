"""The error of a request that cannot be carried out."""

__all__ = ["RequestError"]


class RequestError(ValueError):
    """What the user asked for is wrong: one sentence with the argument, the rule, the value and the fix.

    The command line prints it and exits with status 2; anything else is a defect and keeps its traceback.
    """
