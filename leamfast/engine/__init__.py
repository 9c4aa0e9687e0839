"""Plans, drivers, and the passes that they carry out."""

from leamfast.engine.local import LocalDriver
from leamfast.engine.run import RunReport, run

__all__ = ["LocalDriver", "RunReport", "run"]
