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


def test_importing_starts_no_device_and_needs_torch_and_numpy_alone() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import leamfast_kernels;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names;"
        "assert new <= {'leamfast_kernels', 'numpy'}, new;"
        "assert not torch.cuda.is_initialized()"
    )
    folder = Path(leamfast_kernels.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_first_call_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from leamfast_kernels import aggregate, support;"
        "support(aggregate(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)), [50], 4);"
        "assert 'torch._dynamo' not in sys.modules"
    )
    folder = Path(leamfast_kernels.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name) -> None:
    module = importlib.import_module(f"leamfast_kernels.{name}")
    assert doctest.testmod(module).failed == 0
