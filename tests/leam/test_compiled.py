"""Compiled programs as files: what they give, where they run, and what is refused."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from leamfast import LEAM, RequestError, load_model
from leamfast.cli.compile import compile_
from leamfast.leam.backends import compile_program
from leamfast.leam.taps import select_taps
from leamfast.models.compiled import ProgramInfo, is_program, load_program, read_info

WITHOUT_SOURCE = """
import sys
import numpy as np, torch
for name in sys.argv[3].split(","):
    sys.modules[name] = None  # importing it fails
import leamfast
model = leamfast.load_model(sys.argv[1], trust_code=True)
images, references = torch.load(sys.argv[2])
result = leamfast.LEAM(model)(images, references)
np.savez(sys.argv[2] + ".npz", **{name: maps.numpy() for name, maps in result.maps.items()})
"""


@pytest.fixture(scope="module")
def demo_program(tmp_path_factory) -> Path:
    """The demo model, compiled; not to be changed."""
    path = tmp_path_factory.mktemp("programs") / "demo.pt"
    model = load_model("demo")
    compile_program(model, select_taps(model, "auto"), path, backend="torchscript", registration="receptive")
    return path


def altered(path: Path, to: Path, **changes: object) -> Path:
    """The program with other words about itself."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as copy:
        for item in archive.infolist():
            content = archive.read(item)
            if item.filename.endswith("extra/leamfast.json"):
                content = json.dumps(json.loads(content) | changes).encode()
            copy.writestr(item, content)
    return to


def run_without(program: Path, images, references, modules: str, folder: Path):
    """Maps by a fresh process that cannot import some modules."""
    torch.save([images, references], folder / "inputs")
    command = [sys.executable, "-c", WITHOUT_SOURCE, str(program), str(folder / "inputs"), modules]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'kernels'}"}
    subprocess.run(command, check=True, env=environment, cwd=folder)
    import numpy as np

    return {name: torch.from_numpy(maps) for name, maps in np.load(folder / "inputs.npz").items()}


@pytest.mark.parametrize("suffix", ["pt", "pt2"])
def test_mobilefacenet_runs_where_its_source_cannot_be_imported(shared_data, tmp_path, suffix, request):
    if suffix == "pt2":
        request.getfixturevalue("compiler")
    model = load_model(f"mobilefacenet={shared_data / 'mobilefacenet.pt'}")
    program = tmp_path / f"program.{suffix}"
    backend = "inductor" if suffix == "pt2" else "torchscript"
    compile_program(model, select_taps(model, "auto"), program, backend=backend)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 112, 112, generator=generator)
    references = torch.randn(5, 128, generator=generator)
    wanted = LEAM(model)(images, references).maps
    source = "leamfast.models.mobilefacenet,leamfast.models.iresnet"
    found = run_without(program, images, references, source, tmp_path)
    assert list(found) == list(wanted)
    for name, maps in wanted.items():
        assert (found[name] - maps).norm() / maps.norm() < 3e-3, name


def test_a_program_says_what_it_is(demo_program):
    model = load_model("demo")
    info = read_info(demo_program)
    assert is_program(demo_program)
    assert info == ProgramInfo.from_json(info.to_json())
    assert (info.model, info.weights, info.preprocessing) == (model.name, model.weights, model.preprocessing)
    assert (info.target, info.activation, info.registration) == ("loss", "signed", "receptive")
    loaded = load_model(f"again:={demo_program}", trust_code=True)
    assert loaded.name == "again"
    assert loaded.taps() == select_taps(model, "auto")
    assert LEAM(loaded, registration="receptive").centres == LEAM(model, registration="receptive").centres


def test_some_of_its_taps(demo_program):
    loaded = load_model(str(demo_program), trust_code=True)
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 128)
    every = LEAM(loaded, registration="receptive")(images, references).maps
    names = [list(every)[6], list(every)[2]]
    some = LEAM(loaded, names, registration="receptive")(images, references).maps
    assert sorted(some) == sorted(names)
    assert all(torch.equal(some[name], every[name]) for name in names)


def test_it_is_code_and_needs_trust(demo_program):
    with pytest.raises(RequestError, match=r"compiled code: allow it with --trust-code"):
        load_model(str(demo_program))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"torch": "1.13.0"}, "was compiled for torch 1.13.0, but this is"),
        ({"device": "cuda"}, "was compiled for device cuda, but this is cpu"),
        ({"processor": "sparc VIS"}, "was compiled for processor sparc VIS, but this is"),
        ({"schema": "leamfast-program/9"}, "is damaged"),
        ({"taps": 3}, "is damaged"),
        ({"backend": "inductor"}, "cannot be loaded"),
    ],
)
def test_what_was_made_for_elsewhere_is_refused(demo_program, tmp_path, changes, says):
    path = altered(demo_program, tmp_path / "other.pt", **changes)
    with pytest.raises(RequestError, match=says) as error:
        load_model(str(path), trust_code=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"), [("target", "similarity"), ("activation", "positive"), ("precision", "bf16")]
)
def test_maps_of_another_kind_than_it_was_compiled_for_are_refused(demo_program, option, value):
    loaded = load_model(str(demo_program), trust_code=True)
    with pytest.raises(RequestError, match=f"was compiled with {option} .*, got {value}"):
        LEAM(loaded, **({"registration": "receptive"} | {option: value}))


def test_another_backend_than_it_was_compiled_by_is_refused(demo_program):
    loaded = load_model(str(demo_program), trust_code=True)
    LEAM(loaded, registration="receptive", backend="torchscript")
    for backend in ("eager", "inductor"):
        with pytest.raises(RequestError, match=f"was compiled by torchscript, got backend {backend}"):
            LEAM(loaded, registration="receptive", backend=backend)


def test_a_program_that_unpacks_to_far_more_than_it_is(demo_program, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/extra/leamfast.json", b" " * (65 << 20))
    with pytest.raises(RequestError, match="unpacks to"):
        read_info(path)


def test_damaged_files_are_refused(demo_program, tmp_path):
    whole = demo_program.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[: len(whole) // 2])
    assert not is_program(cut)
    with zipfile.ZipFile(demo_program) as archive, zipfile.ZipFile(tmp_path / "hollow.pt", "w") as copy:
        for item in archive.infolist():
            copy.writestr(item, archive.read(item) if "extra" in item.filename else b"")
    with pytest.raises(RequestError, match=r"^[^\n]*cannot be loaded[^\n]*$"):
        load_program(tmp_path / "hollow.pt")


def test_a_file_that_gives_wrong_maps_is_not_kept(monkeypatch, tmp_path):
    from leamfast.leam import backends

    model, load = load_model("demo"), backends.load_passes

    def wrong(*arguments):
        passes = load(*arguments)
        return replace(passes, backward=lambda *inputs: [-maps for maps in passes.backward(*inputs)])

    monkeypatch.setattr(backends, "load_passes", wrong)
    with pytest.raises(RequestError, match="gives wrong results: at call 1"):
        compile_program(model, select_taps(model, "auto"), tmp_path / "p.pt", backend="torchscript")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_program_is_not_overwritten(tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, weights)
    before = weights.read_bytes()
    with pytest.raises(RequestError, match="exists and is no compiled program: it is not overwritten"):
        compile_("demo", weights)
    assert weights.read_bytes() == before
