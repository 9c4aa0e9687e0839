"""Runs by other backends than autograd, and by compiled programs."""

from dataclasses import replace

import numpy as np
import pytest

from leamfast import RequestError, load_model, open_results
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.leam.backends import compile_program
from leamfast.leam.taps import select_taps
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_frozen

TAPS = ("conv1", "layer2.0.conv1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def request_for(faces, tmp_path):
    return BatchRequest(
        data=faces, out=tmp_path / "out", model=("demo",), layers=(",".join(TAPS),), align="none",
        shard_images=12, batch_size=5, threads=1, backend="torchscript",
    )  # fmt: skip


def maps_of(out, name="demo"):
    with open_results(out) as results:
        return {tap: np.array(results.map(name, tap, slice(None))) for tap in results.taps(name)}


def run(request, **changes):
    notes: list[str] = []
    run_batch(replace(request, **changes), note=notes.append)
    return notes


def frozen(out):
    return read_frozen(RunFolder(out).settings)


def test_the_same_maps_as_by_autograd_and_the_same_bits_by_workers(request_for, tmp_path, cache):
    notes = run(request_for)
    assert any("preparing backend torchscript" in text for text in notes)
    run(request_for, out=tmp_path / "eager", backend="eager")
    run(request_for, out=tmp_path / "workers", workers=2)
    found, wanted, shared = (maps_of(tmp_path / name) for name in ("out", "eager", "workers"))
    for tap in TAPS:
        assert np.isfinite(wanted[tap]).all()
        assert np.abs(found[tap].astype(float) - wanted[tap]).max() < 5e-3
        np.testing.assert_array_equal(shared[tap], found[tap])
    model = frozen(request_for.out)["models"]["demo"]
    assert (model["backend"], model["memory_layout"]) == ("torchscript", "channels_last")


def test_a_resumed_run_keeps_what_auto_meant(request_for, tmp_path, cache, monkeypatch):
    from leamfast.engine import programs

    monkeypatch.setattr(programs, "choose_backend", lambda *arguments: ("torchscript", "eager"))
    run(request_for, backend="auto")
    before = maps_of(request_for.out)
    sorted((request_for.out / "shards").iterdir())[1].unlink()
    monkeypatch.setattr(programs, "choose_backend", lambda *arguments: pytest.fail("chosen anew"))
    run(request_for, backend="auto", resume=True)
    for tap, maps in maps_of(request_for.out).items():
        np.testing.assert_array_equal(maps, before[tap])
    with pytest.raises(RequestError, match="was made with other settings"):
        run(request_for, backend="eager", resume=True)


def test_auto_says_that_compiling_does_not_pay_for_few_images(request_for, cache):
    notes = run(request_for, backend="auto")
    assert "demo: backend eager, as compiling does not pay for 48 images" in notes
    assert frozen(request_for.out)["models"]["demo"]["backend"] == "eager"


def test_auto_goes_on_to_what_works_and_says_so(request_for, cache, monkeypatch):
    from leamfast.engine import programs

    build = programs.build_program

    def failing(*arguments, backend, **options):
        if backend != "eager":
            raise RequestError("it gives wrong results")
        return build(*arguments, backend=backend, **options)

    monkeypatch.setattr(programs, "choose_backend", lambda *arguments: ("inductor", "torchscript", "eager"))
    monkeypatch.setattr(programs, "build_program", failing)
    notes = run(request_for, backend="auto")
    assert [text for text in notes if "left aside" in text] == [
        "demo: backend inductor is left aside: it gives wrong results",
        "demo: backend torchscript is left aside: it gives wrong results",
    ]
    assert frozen(request_for.out)["models"]["demo"]["backend"] == "eager"
    with pytest.raises(RequestError, match="wrong results"):
        run(request_for, out=request_for.out.with_name("asked"), backend="torchscript")


def test_a_run_by_a_compiled_program(request_for, tmp_path, cache):
    model = load_model("demo")
    program = tmp_path / "program.pt"
    compile_program(model, select_taps(model, TAPS), program, backend="torchscript")
    given = replace(request_for, model=(str(program),), layers=("auto",), backend="auto")
    with pytest.raises(RequestError, match="--trust-code"):
        run(given)
    run(given, trust_code=True)
    run(request_for, out=tmp_path / "other")
    for tap, maps in maps_of(tmp_path / "other").items():
        np.testing.assert_array_equal(maps_of(given.out)[tap], maps)
    settings = frozen(given.out)["models"]["demo"]
    assert settings["weights"] == model.weights
    compile_program(model, select_taps(model, TAPS), program, backend="torchscript", registration="receptive")
    with pytest.raises(RequestError, match="registration"):
        run(given, trust_code=True, resume=True)
