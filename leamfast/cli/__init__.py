"""The commands: they parse and call, nothing more."""
