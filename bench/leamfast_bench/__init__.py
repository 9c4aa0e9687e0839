"""Benchmarks, and the training of the models that they and the demo use."""
