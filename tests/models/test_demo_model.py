"""The packaged demo model: its file, and whether it knows unseen synthetic people apart."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.models.demo import DEMO_ARCHITECTURE, DEMO_WEIGHTS, demo_network
from leamfast_bench.recognition import same_different_auc
from leamfast_bench.training import cosface, embed, render_people

UNSEEN = 2_000_000  # neither trained nor measured on by train_demo
PEOPLE, IMAGES = 60, 5


@pytest.fixture(scope="module")
def network():
    network = demo_network()
    network.load_state_dict(load_file(DEMO_WEIGHTS), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def faces():
    return render_people(FaceGenerator(), UNSEEN, PEOPLE, IMAGES)


def test_weights_file_is_small_and_says_what_it_is():
    assert DEMO_WEIGHTS.stat().st_size <= 4_000_000
    with safe_open(DEMO_WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert {key: metadata[key] for key in DEMO_ARCHITECTURE} == DEMO_ARCHITECTURE
    assert metadata["seed"] == "0"
    assert float(metadata["auc"]) >= 0.99
    assert float(metadata["auc_pixels"]) <= 0.80


def test_model_tells_unseen_people_apart(network, faces):
    assert same_different_auc(embed(network, faces), np.repeat(np.arange(PEOPLE), IMAGES)) >= 0.99


def test_raw_pixels_do_not(faces):
    pixels = faces.reshape(len(faces), -1).astype(np.float32)
    assert same_different_auc(pixels - pixels.mean(0), np.repeat(np.arange(PEOPLE), IMAGES)) <= 0.80


def test_auc_by_hand():
    # Cosines: same (0, 1) = 0.6 and (2, 3) = 0.8; different 0, 0.8, 0.6, 1.0 (see the vectors).
    vectors = np.array([(1.0, 0.0), (0.6, 0.8), (0.0, 1.0), (0.6, 0.8)], np.float32)
    people = np.array([0, 0, 1, 1])
    # 0.6 beats {0} and ties with {0.6}: 1.5 of 4; 0.8 beats {0, 0.6} and ties with {0.8}: 2.5 of 4.
    assert same_different_auc(vectors, people) == pytest.approx((1.5 + 2.5) / 8)


def test_cosface_by_hand():
    embeddings, centres = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    expected = np.log(1 + np.exp(-24 * (1 - 0.2)))
    assert cosface(embeddings, centres, torch.tensor([0]), 0.2).item() == pytest.approx(expected, abs=1e-6)
