"""The 19 face regions, in the order of facer's `farl/celebm/448` parser.

Other parsers (BiSeNet, CelebAMask-HQ) order the same regions differently: map by name, never by index.
"""

__all__ = ["REGIONS", "region_index"]

REGIONS: tuple[str, ...] = (
    "background", "neck", "face", "cloth", "rr", "lr", "rb", "lb", "re", "le",
    "nose", "imouth", "llip", "ulip", "hair", "eyeg", "hat", "earr", "neck_l",
)  # fmt: skip


def region_index(name: str) -> int:
    """Index of a region in `REGIONS`.

    Raises:
        ValueError: `name` is none of the 19 regions.
    """
    if name not in REGIONS:
        raise ValueError(f"region must be one of {', '.join(REGIONS)}, got {name!r}")
    return REGIONS.index(name)
