"""Faults at random moments of real runs, which must lose nothing: `python -m tests.chaos`, `make chaos`."""
