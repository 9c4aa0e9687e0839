"""Architectures, preprocessing, the zoo of named models, and loading of weights."""
