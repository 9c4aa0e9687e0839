"""Says what this machine lacks before anything is installed, and which Debian package has it.

Runs on any Python 3, with the standard library alone.
"""

import ctypes
import sys

LIBRARIES = {
    "libGL.so.1": ("OpenGL, which OpenCV links", "libgl1"),
    "libglib-2.0.so.0": ("GLib, which OpenCV links", "libglib2.0-0"),
    "libgthread-2.0.so.0": ("GLib threads, which OpenCV links", "libglib2.0-0"),
}


def problems():
    """One sentence for each thing that is missing."""
    found = []
    if sys.version_info < (3, 11):
        found.append(
            "this Python is too old, leamfast needs 3.11 or later: name one with `make PYTHON=python3.12 ...`"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append("Python's venv module is missing: install the Debian package python3-venv")
    if sys.platform == "linux":
        for name, (what, package) in LIBRARIES.items():
            try:
                ctypes.CDLL(name)
            except OSError:
                found.append(name + " (" + what + ") is missing: install the Debian package " + package)
    return found


if __name__ == "__main__":
    missing = problems()
    for sentence in missing:
        print("leamfast: " + sentence, file=sys.stderr)
    sys.exit(1 if missing else 0)
