"""Stored results -> tables. Needs neither a model nor a device."""
