"""Tables and stored maps -> pictures."""
