"""Maps against independent computations: pytorch-grad-cam, float64 by hand, and finite differences."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from leamfast import LEAM, FaceModel, RequestError
from leamfast.leam.program import Program
from leamfast.leam.references import leave_one_out
from leamfast.leam.taps import select_taps
from leamfast.models.layers import Layer

SHALLOW, DEEP = "conv1", "layer4.0.conv2"


def inputs(model: FaceModel, count: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = model.preprocessing.size
    images = torch.randn(count, 3, size, size, generator=generator)
    with torch.no_grad():
        references = model.network(torch.randn(count, 3, size, size, generator=generator))
    return images, references


def double(model: FaceModel) -> FaceModel:
    return FaceModel("double", "double", copy.deepcopy(model.network).double(), model.preprocessing, "")


def maps_by_hand(model: FaceModel, taps, images, references, sign=-1.0) -> dict[str, torch.Tensor]:
    """Float64, hooks that clone, the whole graph: none of the program's short cuts."""
    network = copy.deepcopy(model.network).double()
    acts: dict[str, torch.Tensor] = {}
    for name in taps:

        def keep(module, args, output, name=name):
            acts[name] = output
            return output.clone()

        network.get_submodule(name).register_forward_hook(keep)
    embeddings = network(images.double().requires_grad_())
    cosines = nn.functional.cosine_similarity(embeddings, references.double())
    grads = torch.autograd.grad((sign * cosines).sum(), [acts[name] for name in taps])
    return {
        name: (grad.clamp_min(0) * acts[name]).sum(1).clamp_min(0).detach()
        for name, grad in zip(taps, grads, strict=True)
    }


class OneMinusCosine:
    """A pytorch-grad-cam target. The library ascends its target, so this is the gradient of 1 - cos."""

    def __init__(self, reference: torch.Tensor) -> None:
        self.reference = reference

    def __call__(self, embedding: torch.Tensor) -> torch.Tensor:
        return 1 - nn.functional.cosine_similarity(embedding, self.reference, dim=-1)


@pytest.mark.parametrize("tap", [SHALLOW, "layer1.0.prelu", "layer2.0.conv1", "layer3.0", DEEP])
def test_equal_to_layercam_of_pytorch_grad_cam(small_iresnet, tap):
    from pytorch_grad_cam import LayerCAM

    images, references = inputs(small_iresnet)
    ours = LEAM(small_iresnet, [tap])(images, references).maps[tap]
    network = copy.deepcopy(small_iresnet.network)
    with LayerCAM(model=network, target_layers=[network.get_submodule(tap)]) as cam:
        cam(images, targets=[OneMinusCosine(r) for r in references])
        acts = cam.activations_and_grads.activations[0].numpy()
        grads = cam.activations_and_grads.gradients[0].numpy()
        theirs = cam.get_cam_image(images, cam.target_layers[0], None, acts, grads, False)
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(
        ours.numpy(), np.maximum(theirs, 0), rtol=1e-4, atol=1e-6 * np.abs(theirs).max()
    )


@pytest.mark.parametrize(("target", "sign"), [("loss", -1.0), ("similarity", 1.0)])
def test_every_call_agrees_with_float64_by_hand(small_iresnet, target, sign):
    images, references = inputs(small_iresnet)
    taps = [tap.name for tap in select_taps(small_iresnet, "all")]
    leam = LEAM(small_iresnet, taps, target)
    for call in range(1, 6):
        images, references = inputs(small_iresnet, seed=call)
        wanted = maps_by_hand(small_iresnet, taps, images, references, sign)
        result = leam(images, references)
        for name in taps:
            error = (result.maps[name] - wanted[name]).norm() / wanted[name].norm()
            assert error < 2e-3, (call, name)
    assert (result.maps[DEEP] - wanted[DEEP]).norm() / wanted[DEEP].norm() < 1e-5


def test_positive_activations_by_hand(small_iresnet):
    images, references = inputs(small_iresnet)
    network = copy.deepcopy(small_iresnet.network)
    acts: list[torch.Tensor] = []
    network.layer2[0].register_forward_hook(lambda module, args, output: acts.append(output))
    cosines = nn.functional.cosine_similarity(network(images.requires_grad_()), references)
    (grads,) = torch.autograd.grad(-cosines.sum(), acts)
    wanted = (grads.clamp_min(0) * acts[0].clamp_min(0)).sum(1).detach()
    found = LEAM(small_iresnet, ["layer2.0"], activation="positive")(images.detach(), references)
    signed = LEAM(small_iresnet, ["layer2.0"])(images.detach(), references)
    torch.testing.assert_close(found.maps["layer2.0"], wanted, rtol=1e-3, atol=1e-7)
    assert not torch.allclose(found.maps["layer2.0"], signed.maps["layer2.0"])


def test_float64_is_exact_everywhere(small_iresnet):
    model = double(small_iresnet)
    images, references = (tensor.double() for tensor in inputs(small_iresnet))
    taps = [tap.name for tap in select_taps(model, "all")]
    result = LEAM(model, taps)(images, references)
    for name, wanted in maps_by_hand(model, taps, images, references).items():
        torch.testing.assert_close(result.maps[name], wanted, rtol=1e-9, atol=1e-14)


def test_gradient_against_finite_differences(small_iresnet):
    """One channel of one cell is moved by hand: the change of 1 - cos must be what the map was made of."""
    model = double(small_iresnet)
    images, references = (t.double() for t in inputs(small_iresnet, count=1))
    name, cell, step = "layer3.0.conv1", (0, slice(None), 1, 2), 1e-6

    def loss(delta: torch.Tensor) -> float:
        handle = model.network.get_submodule(name).register_forward_hook(lambda m, a, out: out + delta)
        with torch.no_grad():
            value = 1 - nn.functional.cosine_similarity(model.network(images), references)
        handle.remove()
        return float(value)

    acts: list[torch.Tensor] = []
    handle = model.network.get_submodule(name).register_forward_hook(lambda m, a, out: acts.append(out))
    model.network(images)
    handle.remove()
    total = 0.0
    for channel in range(acts[0].shape[1]):
        delta = torch.zeros_like(acts[0])
        delta[0, channel, cell[2], cell[3]] = step
        gradient = (loss(delta) - loss(-delta)) / (2 * step)
        total += max(gradient, 0) * float(acts[0][0, channel, cell[2], cell[3]].detach())
    found = LEAM(model, [name])(images, references).maps[name][0, cell[2], cell[3]]
    assert float(found) == pytest.approx(max(total, 0), rel=1e-5, abs=1e-12)


def test_what_overwrites_a_tap_does_not_change_its_map(in_place):
    images, references = inputs(in_place)
    taps = ["conv1", "relu", "conv2"]
    assert [layer.overwritten for layer in in_place.layers if layer.name in ("conv1", "conv2")] == [
        True,
        True,
    ]
    result = LEAM(in_place, taps)(images, references)
    for name, wanted in maps_by_hand(in_place, taps, images, references).items():
        torch.testing.assert_close(result.maps[name].double(), wanted, rtol=1e-4, atol=1e-6)


def test_one_forward_and_one_backward_serve_all_taps(small_iresnet, monkeypatch):
    images, references = inputs(small_iresnet)
    leam = LEAM(small_iresnet, "all")
    passes = {"forward": 0, "backward": 0}
    small_iresnet.network.register_forward_hook(lambda *a: passes.update(forward=passes["forward"] + 1))
    grad = torch.autograd.grad

    def counted(*args, **kwargs):
        passes["backward"] += 1
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    leam(images, references)
    assert passes == {"forward": 1, "backward": 1}


def test_the_network_is_left_as_it_was(small_iresnet):
    network = small_iresnet.network
    network.conv1.weight.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, references = inputs(small_iresnet)
    LEAM(small_iresnet, "all")(images, references)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.conv1.weight.requires_grad
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.is_grad_enabled()


def test_hooks_and_grad_mode_are_restored_after_an_error(small_iresnet):
    images, references = inputs(small_iresnet)
    small_iresnet.network.fc.register_forward_pre_hook(lambda *a: 1 / 0)
    taps = [Layer(SHALLOW, "Conv2d", 4, 32, 32, 1, False)]
    with pytest.raises(ZeroDivisionError):
        Program(small_iresnet, taps)(images, references=references)
    assert not any(module._forward_hooks for module in small_iresnet.network.modules())
    assert torch.is_grad_enabled()


def test_no_gradient_flows_above_the_first_tap(small_iresnet):
    """The leaf is the first tap: nothing before it takes part in the backward pass."""
    images, references = inputs(small_iresnet)
    images.requires_grad_()
    seen: list[bool] = []
    small_iresnet.network.layer1.register_forward_hook(lambda m, a, out: seen.append(out.requires_grad))
    LEAM(small_iresnet, ["layer2.0.conv1"])(images, references)
    assert seen[-1] is False


def test_several_references_equal_one_at_a_time(small_iresnet):
    images, first = inputs(small_iresnet)
    second = inputs(small_iresnet, seed=5)[1]
    leam = LEAM(small_iresnet)
    references = torch.stack([first, second, torch.full_like(first, torch.nan)], dim=1)
    together = leam(images, references)
    for i, single in enumerate((first, second)):
        alone = leam(images, single)
        torch.testing.assert_close(together.cosines[:, i], alone.cosines)
        for tap in leam.taps:
            torch.testing.assert_close(together.maps[tap][:, i], alone.maps[tap])
    assert all(maps[:, 2].isnan().all() and not maps[:, :2].isnan().any() for maps in together.maps.values())
    assert together.cosines[:, 2].isnan().all()


def test_batch_equals_loop(small_iresnet):
    images, references = inputs(small_iresnet, count=4)
    leam = LEAM(small_iresnet)
    together = leam(images, references)
    for i in range(4):
        alone = leam(images[i : i + 1], references[i : i + 1])
        for tap in leam.taps:
            torch.testing.assert_close(together.maps[tap][i], alone.maps[tap][0], rtol=1e-3, atol=1e-6)


def test_references_inside_the_batch_equal_references_given(small_iresnet):
    images, _ = inputs(small_iresnet, count=6)
    identities = torch.tensor([0, 0, 1, 1, 1, 2])
    program = Program(small_iresnet, select_taps(small_iresnet, "auto"))
    inside = program(images, leave_one_out(identities))
    with torch.no_grad():
        units = nn.functional.normalize(small_iresnet.network(images))
    means = torch.stack(
        [units[[j for j in range(6) if j != i and identities[j] == identities[i]]].mean(0) for i in range(6)]
    )
    outside = program(images[:5], references=means[:5])
    torch.testing.assert_close(inside.cosines[:5], outside.cosines)
    for tap, maps in inside.maps.items():
        torch.testing.assert_close(maps[:5], outside.maps[tap], rtol=1e-3, atol=1e-6)
        assert maps[5].isnan().all()  # alone in its identity
    assert inside.cosines[5].isnan()


def test_the_length_of_a_reference_plays_no_part(small_iresnet):
    images, references = inputs(small_iresnet)
    leam = LEAM(small_iresnet, [SHALLOW])
    torch.testing.assert_close(leam(images, 7 * references).maps, leam(images, references).maps)


def test_a_reference_equal_to_its_image_is_refused(small_iresnet):
    images, references = inputs(small_iresnet)
    references[1] = small_iresnet.embed(images[1:2])[0]
    with pytest.raises(RequestError, match=r"references\[1\] equals the embedding of images\[1\]"):
        LEAM(small_iresnet)(images, references)
    with pytest.raises(RequestError, match=r"references\[1\]"):
        LEAM(small_iresnet)(images, references[:, None].expand(-1, 2, -1))


@pytest.mark.parametrize(
    ("images", "references", "words"),
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(3, 16), r"shape \(2, 16\) or .*, got \(3, 16\)$"),
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 16), "32, 32"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 16), "preprocessed floats"),
        (torch.ones(2, 3, 32, 32), torch.ones(2, 15), r"shape \(2, 16\) or .*, got \(2, 15\)$"),
    ],
)
def test_shapes_that_do_not_fit(small_iresnet, images, references, words):
    with pytest.raises(RequestError, match=words):
        LEAM(small_iresnet)(images, references)


def test_a_tap_that_does_not_reach_the_embedding(in_place):
    images, references = inputs(in_place)
    with pytest.raises(RequestError, match="'unused' .* does not influence the embedding"):
        LEAM(in_place, ["conv1", "unused"])(images, references)


def test_training_mode_is_refused(small_iresnet):
    images, references = inputs(small_iresnet)
    leam = LEAM(small_iresnet)
    small_iresnet.network.train()
    with pytest.raises(RequestError, match="training mode"):
        leam(images, references)


def test_other_arguments(small_iresnet):
    with pytest.raises(RequestError, match="target"):
        LEAM(small_iresnet, target="cosine")
    with pytest.raises(RequestError, match="activation"):
        LEAM(small_iresnet, activation="relu")
    with pytest.raises(RequestError, match="registration"):
        LEAM(small_iresnet, registration="true")
    with pytest.raises(RequestError, match="backend"):
        LEAM(small_iresnet, backend="fast")
    with pytest.raises(TypeError, match="load_model"):
        LEAM(small_iresnet.network)
    with pytest.raises(RequestError, match="weights or references"):
        LEAM(small_iresnet).program(torch.zeros(1, 3, 32, 32))
