"""The same values on a CUDA device as on the CPU."""

import pytest
import torch

from leamfast import LEAM, load_model
from leamfast.engine.batch_run import BatchRequest, run_batch
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


def test_a_run_on_the_device(faces, tmp_path):
    request = BatchRequest(data=faces, out=tmp_path / "out", model=("demo",), align="none", device="cuda")
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
