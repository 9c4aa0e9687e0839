"""Planted truth: models that can only use one region of the face, and how well maps find it."""
