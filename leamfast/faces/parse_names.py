"""Class names of face parsers, and which of our regions each of them is: by name, never by index.

Left and right of `REGIONS` are the person's own, as in facer. Those of CelebAMask-HQ are the viewer's: its
`l_eye` lies left in the picture and is the person's right eye. FaRL, from which facer's parser comes, was
trained on these masks and names them so: `l_ear, r_ear, l_brow, r_brow, l_eye, r_eye` became
`rr, lr, rb, lb, re, le` (FaRL, farl/datasets/celebamask_hq.py). facer turned LaPa's names in the same way:
class 2, `lb` in farl/datasets/lapa.py, is `rb` in `lapa/448`.

Reference: C.-H. Lee et al., MaskGAN: Towards Diverse and Interactive Facial Image Manipulation, CVPR 2020
(CelebAMask-HQ).
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS, region_index

__all__ = ["CELEBAMASK_HQ", "NAMES_FILE", "UNKNOWN", "class_regions", "read_names"]

UNKNOWN = 255
"""Label of a pixel of which a parser cannot tell the region: `NO_LABEL` of the store."""

CELEBAMASK_HQ: tuple[str, ...] = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""Classes in the order of the BiSeNets that are trained on CelebAMask-HQ."""

SAME_REGION = {
    "skin": "face", "l_brow": "rb", "r_brow": "lb", "l_eye": "re", "r_eye": "le", "eye_g": "eyeg",
    "l_ear": "rr", "r_ear": "lr", "ear_r": "earr", "mouth": "imouth", "u_lip": "ulip", "l_lip": "llip",
}  # fmt: skip

NAMES_FILE = "extra/names"
"""Where an archive may name its classes: `torch.jit.save(..., _extra_files={"names": text})`, with one name a
line or a list in JSON."""

MAX_NAMES_BYTES = 10_000


def class_regions(names: Sequence[str]) -> NDArray[np.uint8]:
    """Index in `REGIONS` of each class of a parser, shape (len(names),), uint8.

    Args:
        names: of `REGIONS` or `CELEBAMASK_HQ`, in the order of the parser's classes.

    Raises:
        RequestError: there are not 19, one is unknown, or two are the same region.
    """
    if len(names) != len(REGIONS):
        raise RequestError(f"parser must have {len(REGIONS)} classes, got names of {len(names)}")
    mapped = [SAME_REGION.get(name, name) for name in names]
    for name, region in zip(names, mapped, strict=True):
        if region not in REGIONS:
            raise RequestError(
                f"parser has a class {name!r}, which is none of {', '.join(CELEBAMASK_HQ)} "
                f"and none of {', '.join(REGIONS)}"
            )
        if mapped.count(region) > 1:
            same = [name for name, other in zip(names, mapped, strict=True) if other == region]
            raise RequestError(f"parser must have one class a region, got {', '.join(same)} for {region}")
    return np.array([region_index(region) for region in mapped], dtype=np.uint8)


def read_names(archive: Path) -> tuple[str, ...] | None:
    """Names of the classes that an archive carries in `NAMES_FILE`; None where it does not.

    Args:
        archive: a zip file that has been checked already.

    Raises:
        RequestError: the member is there but holds no list of names.
    """
    with zipfile.ZipFile(archive) as members:
        found = [name for name in members.namelist() if name.partition("/")[2] == NAMES_FILE]
        if not found:
            return None
        if members.getinfo(found[0]).file_size > MAX_NAMES_BYTES:
            raise RequestError(f"its {NAMES_FILE} has more than {MAX_NAMES_BYTES} bytes: name 19 classes")
        content = members.read(found[0])
    try:
        text = content.decode()
        names = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"its {NAMES_FILE} is neither one name a line nor a list in JSON: {exc}") from exc
    if not all(isinstance(name, str) for name in names):
        raise RequestError(f"its {NAMES_FILE} must be a list of names, got {text[:80]!r}")
    return tuple(names)
