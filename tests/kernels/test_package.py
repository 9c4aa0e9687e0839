"""The face of the package: what it exports, what it imports, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import leamfast_kernels

MODULES = [module.name for module in pkgutil.iter_modules(leamfast_kernels.__path__)]


def test_everything_exported_exists_and_is_documented() -> None:
    for name in leamfast_kernels.__all__:
        assert getattr(leamfast_kernels, name).__doc__


def test_importing_starts_no_device_and_needs_torch_alone() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import leamfast_kernels;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert not new & {'triton', 'ot', 'ray', 'h5py', 'facer', 'cv2', 'leamfast'}, new;"
        "assert not torch.cuda.is_initialized()"
    )
    folder = Path(leamfast_kernels.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name) -> None:
    module = importlib.import_module(f"leamfast_kernels.{name}")
    assert doctest.testmod(module).failed == 0
