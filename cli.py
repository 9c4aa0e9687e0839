"""The `leamfast` command from a checkout, without installing: `python cli.py batch ...`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / name) for name in ("", "kernels", "bench")]

from leamfast.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
