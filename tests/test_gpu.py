"""The same values on a CUDA device as on the CPU."""

import numpy as np
import pytest
import torch

from leamfast import LEAM, RequestError, load_model
from leamfast.cli.compile import FORMATS
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.shares import Masks, shares
from leamfast.faces.regions import REGIONS
from leamfast.leam.backends import compile_program
from leamfast.leam.checking import TOLERANCES
from leamfast.leam.references import leave_one_out
from leamfast.leam.taps import select_taps
from leamfast.store.arrays import NO_LABEL
from leamfast_kernels import aggregate, region_share, support

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def test_maps_agree_with_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    references = torch.randn(4, 512, generator=torch.Generator().manual_seed(1))
    host = LEAM(load_model("AF_R18=random:0"))(images, references)
    device = LEAM(load_model("AF_R18=random:0", device="cuda"))(images.cuda(), references.cuda())
    for tap, maps in host.maps.items():
        error = (device.maps[tap].cpu() - maps).norm() / maps.norm()
        assert error < 5e-3, tap


def test_kernels_agree_with_the_cpu():
    generator = torch.Generator().manual_seed(0)
    acts, grads = torch.randn(2, 3, 16, 28, 28, generator=generator)
    torch.testing.assert_close(aggregate(acts.cuda(), grads.cuda()).cpu(), aggregate(acts, grads))
    maps = torch.rand(3, 28, 28, generator=generator)
    labels = torch.randint(0, 19, (3, 112, 112), generator=generator, dtype=torch.uint8)
    masks = support(maps, [1, 10], 112)
    assert (support(maps.cuda(), [1, 10], 112).cpu() ^ masks).sum() <= 4  # pixels that tie up to rounding
    shares, sizes = region_share(maps.cuda(), labels.cuda(), [1, 10, 100], 112)
    wanted, wanted_sizes = region_share(maps, labels, [1, 10, 100], 112)
    torch.testing.assert_close(shares.cpu(), wanted, atol=0.01, rtol=0)
    assert torch.equal(sizes.cpu(), wanted_sizes)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("backend", ["eager", "torchscript", "inductor"])
def test_every_backend_and_precision(backend, precision, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = load_model("AF_R18=random:0", device="cuda")
    wanted_by = LEAM(model)
    leam = LEAM(model, backend=backend, precision=precision)
    for count in (3, 16, 13, 1, 20):  # captured, captured anew, padded, not worth it, captured anew
        images, references = torch.randn(count, 3, 112, 112).cuda(), torch.randn(count, 512).cuda()
        found, wanted = leam(images, references).maps, wanted_by(images, references).maps
        for tap, maps in wanted.items():
            assert (found[tap] - maps).norm() < TOLERANCES[precision] * maps.norm(), (count, tap)


@pytest.mark.parametrize("backend", ["eager", "torchscript", "inductor"])
def test_the_host_does_not_wait_for_a_batch(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = load_model("demo", device="cuda")
    program = LEAM(model, backend=backend).program
    crops = torch.randint(0, 256, (6, 112, 112, 3), dtype=torch.uint8).numpy()
    weights = leave_one_out(torch.tensor([0, 0, 0, 1, 1, 1]))
    wanted = program(model.preprocess(crops), weights).maps
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = program(model.preprocess(crops), weights).maps
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.allclose(maps, wanted[tap]) for tap, maps in found.items())


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_compiled_program(suffix, tmp_path):
    model = load_model("demo", device="cuda")
    backend = FORMATS[suffix]
    compile_program(model, select_taps(model, "auto"), tmp_path / f"p{suffix}", backend=backend)
    with pytest.raises(RequestError, match="was compiled for device cuda"):
        load_model(str(tmp_path / f"p{suffix}"), trust_code=True)
    loaded = load_model(str(tmp_path / f"p{suffix}"), trust_code=True, device="cuda")
    images, references = torch.randn(5, 3, 112, 112).cuda(), torch.randn(5, 128).cuda()
    wanted = LEAM(model)(images, references).maps
    for tap, maps in LEAM(loaded)(images, references).maps.items():
        assert (maps - wanted[tap]).norm() < TOLERANCES["fp32"] * wanted[tap].norm(), tap


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_run_on_the_device(faces, tmp_path, backend, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    request = BatchRequest(
        data=faces, out=tmp_path / "out", model=("demo",), align="none", device="cuda", backend=backend
    )
    assert run_batch(request, note=lambda text: None).images == 48


def test_planted_truth_scores_agree_with_the_cpu(monkeypatch):
    from leamfast_bench.truth.benchmark import FAITHFUL, Form, score_model
    from leamfast_bench.truth.models import find_models

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    form = Form(4, 3, 1, (FAITHFUL,), (FAITHFUL,), (), ("centre prior", "random"))
    host, device = (score_model(find_models(None)[0], (), form, kind)["scores"] for kind in ("cpu", "cuda"))
    assert len(host) == len(device) > 15
    for one, other in zip(host, device, strict=True):
        assert (one["method"], one["map"]) == (other["method"], other["map"])
        if "over" in one:
            assert other["over"]["5"] == pytest.approx(one["over"]["5"], abs=0.2), one["map"]
            assert other["drop"] == pytest.approx(one["drop"], abs=0.02), one["map"]


def test_masks_make_the_host_wait_for_nothing_between_maps_and_shares():
    labels = np.random.default_rng(0).integers(0, 20, (16, 112, 112)).astype(np.uint8)
    labels[labels == 19] = NO_LABEL
    labels[3] = NO_LABEL
    maps = torch.rand(16, 28, 28)
    device = maps.cuda()
    shares("warm", device, Masks.of(labels, 16, 112, REGIONS[:10], device.device), 112)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = shares("tap", device, Masks.of(labels, 16, 112, REGIONS[:10], device.device), 112)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    wanted = shares("tap", maps, Masks.of(labels, 16, 112, REGIONS[:10], maps.device), 112)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name].cpu(), values, atol=0.01, rtol=0, equal_nan=True)
    assert found["tap/region_share"][3].isnan().all()
