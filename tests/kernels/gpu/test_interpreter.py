"""Every kernel body under Triton's interpreter, in processes of their own, one for each file of tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FILES = {
    "test_aggregate_kernels.py": 100,
    "test_bhattacharyya_kernels.py": 100,
    "test_selection_kernels.py": 30,
    "test_sinkhorn_kernels.py": 12,
}
"""File -> how many tests it has at least."""


def test_kernel_bodies_under_the_interpreter() -> None:
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    running = {
        name: subprocess.Popen(
            [*command, str(folder / name)], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for name in FILES
    }
    printed = {name: process.communicate()[0] for name, process in running.items()}
    for name, least in FILES.items():
        assert running[name].returncode == 0, printed[name]
        assert int(re.search(r"(\d+) passed", printed[name])[1]) > least
        assert "skipped" not in printed[name]


def test_no_file_of_kernel_tests_is_forgotten() -> None:
    assert {path.name for path in Path(__file__).parent.glob("test_*_kernels.py")} == set(FILES)
