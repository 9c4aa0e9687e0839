"""A part of a data set: fewer identities, fewer images of each, chosen with a seed.

What is chosen follows from the seed and from names, never from the order of evaluation: the draws of an
identity come from `numpy.random.default_rng([seed, purpose, *words])`, where words are the eight 32-bit
little-endian words of the SHA-256 of its name in UTF-8. Purpose 0 draws one number, by which identities are
ranked; purpose 1 draws the permutation of its images, in manifest order, whose head is kept. So a smaller
limit chooses a part of what a larger one chooses, and other identities never change an identity's images.
"""

import hashlib
from itertools import groupby

import numpy as np

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError

__all__ = ["limited"]

RANK, IMAGES = 0, 1

TOO_FEW = "image of an identity with fewer than {} images (--min-images)"
NOT_CHOSEN = "image of an identity not among the {} drawn (--limit-identities)"
BEYOND = "image not among the {} drawn of its identity (--images-per-identity)"


def limited(
    manifest: Manifest,
    *,
    identities: int | None = None,
    images_per_identity: int | None = None,
    min_images: int = 1,
    seed: int = 0,
) -> Manifest:
    """Choose a part of a manifest.

    Args:
        manifest: the whole.
        identities: how many identities are chosen at most; None keeps all.
        images_per_identity: how many images of each at most; None keeps all.
        min_images: identities with fewer images are left out first, before anything is drawn.
        seed: the same one chooses the same.

    Returns:
        What is chosen, in manifest order; `left_out` counts the other images by reason, beside those that
        were left out before.

    Raises:
        RequestError: a limit is below 1, the seed is negative, or no identity has enough images.
    """
    limits = {
        "limit-identities": identities,
        "images-per-identity": images_per_identity,
        "min-images": min_images,
    }
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise RequestError(f"--{name} must be at least 1, got {limit}")
    if seed < 0:
        raise RequestError(f"--seed must not be negative, got {seed}")

    groups = {name: list(group) for name, group in groupby(manifest.entries, key=lambda e: e.identity)}
    enough = {name: group for name, group in groups.items() if len(group) >= min_images}
    if groups and not enough:
        raise RequestError(
            f"--min-images must leave an identity, got {min_images} where the largest of {len(groups)} has "
            f"{max(map(len, groups.values()))} images"
        )
    chosen = enough
    if identities is not None and identities < len(enough):
        ranked = sorted(enough, key=lambda name: (_rank(name, seed), name))
        keep = set(ranked[:identities])
        chosen = {name: group for name, group in enough.items() if name in keep}
    kept = {name: _part(group, name, images_per_identity, seed) for name, group in chosen.items()}

    counts = [sum(map(len, part.values())) for part in (groups, enough, chosen, kept)]
    reasons = (
        TOO_FEW.format(min_images),
        NOT_CHOSEN.format(identities),
        BEYOND.format(images_per_identity),
    )
    left_out = dict(manifest.left_out)
    for reason, before, after in zip(reasons, counts, counts[1:], strict=False):
        if before > after:
            left_out[reason] = left_out.get(reason, 0) + before - after
    entries = tuple(entry for group in kept.values() for entry in group)
    return Manifest(manifest.root, entries, manifest.columns, manifest.ignored, left_out)


def _rank(name: str, seed: int) -> int:
    return int(_generator(name, RANK, seed).integers(1 << 63))


def _part(group: list[Entry], name: str, limit: int | None, seed: int) -> list[Entry]:
    """At most so many images of an identity, in their order."""
    if limit is None or limit >= len(group):
        return group
    order = _generator(name, IMAGES, seed).permutation(len(group))
    return [group[i] for i in sorted(order[:limit].tolist())]


def _generator(name: str, purpose: int, seed: int) -> np.random.Generator:
    words = np.frombuffer(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest(), "<u4")
    return np.random.default_rng([seed, purpose, *words.tolist()])
