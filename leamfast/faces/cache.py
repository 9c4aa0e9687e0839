"""What a detector found in a picture, kept in the user's cache: the second run does no detection.

A value is a face (box, points, landmarks, score) or the reason why there is none that can be used. Its key is
a hash of all that it depends on: the picture's bytes and the part taken of it, the detector and its weights,
where it computed and with which libraries, the code here, and what is done with several faces.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from leamfast.datasets import decoding
from leamfast.datasets.entry import Rect
from leamfast.faces.alignment import FaceError
from leamfast.faces.detection import DetectorSpec
from leamfast.faces.selection import Detection, Scores
from leamfast.faces.value_cache import ValueCache, cache_folder, caches_are_on

__all__ = ["FaceCache", "Picture", "code_sha256", "face_cache", "value_key", "weights_sha256"]

LIMIT = 200_000_000
"""Bytes of faces.sqlite3 above which the values that were not used for longest are deleted."""

PACKAGES = (
    "torch",
    "pyfacer",
    "dlib",
    "dlib-bin",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "torchvision",
)

Picture = tuple[str, Rect | None]
"""SHA-1 of the bytes that a picture was decoded from, and the part of the picture that was taken."""

_FACE = struct.Struct("<4f10fd3d?")
_LANDMARKS = 68 * 2 * 4


class FaceCache:
    """Detections of one detector in the user's cache.

    Args:
        depends: what the detector's results depend on besides the picture, as words.
        file: the file; its folder is made.
        note: takes a sentence when the cache cannot be used.
    """

    def __init__(self, depends: Iterable[str], file: Path, note: Callable[[str], None] | None = None) -> None:
        self.depends = tuple(depends)
        self._values = ValueCache(file, LIMIT, note)

    def look_up(self, pictures: Sequence[Picture], faces: str) -> list[Detection | FaceError | None]:
        """What is known of each picture; None where nothing is."""
        keys = [self._key(picture, faces) for picture in pictures]
        values = self._values.get(keys)
        return [_unpack(values[key]) if key in values else None for key in keys]

    def keep(self, found: Sequence[tuple[Picture, Detection | FaceError]], faces: str) -> None:
        """Remember what was found in pictures."""
        self._values.put([(self._key(picture, faces), _pack(face)) for picture, face in found])

    @property
    def detector_loads(self) -> bool:
        """Whether the detector has been loaded here before, the same weights by the same packages."""
        return bool(self._values.get([self._loads]))

    def keep_that_detector_loads(self) -> None:
        """Remember that the detector could be loaded."""
        self._values.put([(self._loads, b"")])

    def close(self) -> None:
        """Close the file; it is opened again where it is used again."""
        self._values.close()

    @property
    def _loads(self) -> bytes:
        return value_key(*self.depends, "loads")

    def _key(self, picture: Picture, faces: str) -> bytes:
        return value_key(*self.depends, faces, *map(str, picture))


def face_cache(
    spec: DetectorSpec, device: str = "cpu", note: Callable[[str], None] | None = None
) -> FaceCache | None:
    """The user's cache for a detector on a device; None where LEAMFAST_FACE_CACHE is `off`.

    Args:
        spec: the detector; its weights are hashed.
        device: what it computes on, in words (`processor_name`), with all that low bits depend on.
        note: as of `FaceCache`.
    """
    if not caches_are_on():
        return None
    words = [code_sha256(), spec.name, weights_sha256(spec.weights), device, *_versions()]
    return FaceCache(words, cache_folder() / "faces.sqlite3", note)


@cache
def code_sha256() -> str:
    """Hash of our sources that decode pictures, find faces and tell regions, on which every value depends."""
    folder = Path(__file__).parent
    total = hashlib.sha256()
    for source in (Path(decoding.__file__), *sorted(folder.glob("*.py"))):
        total.update(source.name.encode() + b"\0" + source.read_bytes())
    return total.hexdigest()


def value_key(*words: str) -> bytes:
    """A key from all that a value depends on."""
    return hashlib.sha256("\0".join(words).encode()).digest()


def weights_sha256(file: Path) -> str:
    """SHA-256 of a file, computed once a process unless the file changes."""
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions() -> list[str]:
    versions = [f"numpy {np.__version__}"]
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return versions


def _pack(found: Detection | FaceError) -> bytes:
    if isinstance(found, FaceError):
        return b"R" + str(found).encode()
    scores, marks = found.scores, found.landmarks
    numbers = [*found.box.tolist(), *found.points.ravel().tolist(), found.score]
    thresholds = scores.candidate, scores.threshold, scores.upright
    value = b"F" + _FACE.pack(*numbers, *thresholds, marks is not None)
    return value + (b"" if marks is None else np.ascontiguousarray(marks, "<f4").tobytes())


def _unpack(value: bytes) -> Detection | FaceError | None:
    """None where the value is of another kind."""
    if value[:1] == b"R":
        return FaceError(value[1:].decode())
    marks = value[1 + _FACE.size :]
    if value[:1] != b"F" or len(value) not in (1 + _FACE.size, 1 + _FACE.size + _LANDMARKS):
        return None
    *numbers, candidate, threshold, upright, landmarks = _FACE.unpack_from(value, 1)
    return Detection(
        box=np.array(numbers[:4], np.float32),
        points=np.array(numbers[4:14], np.float32).reshape(5, 2),
        score=numbers[14],
        landmarks=np.frombuffer(marks, "<f4").astype(np.float32).reshape(68, 2) if landmarks else None,
        scores=Scores(candidate, threshold, upright),
    )
