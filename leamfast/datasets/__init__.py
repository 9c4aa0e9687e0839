"""Manifests, image decoding and the synthetic faces."""
