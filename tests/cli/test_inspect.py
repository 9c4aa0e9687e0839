"""What `leamfast models` and `leamfast layers` list."""

import json

import pytest
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.errors import RequestError


def listed(*args: str) -> dict:
    result = CliRunner().invoke(app, [*args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_models_say_their_input_their_taps_and_their_files():
    rows = {row["name"]: row for row in listed("models")["models"]}
    assert len(rows["CF_R100"]["auto"]) == len(rows["CF_R18"]["auto"]) == 9
    assert (rows["CF_R18"]["auto"][0], rows["CF_R18"]["auto"][-1]) == ("conv1", "layer4.1.conv2")
    assert rows["CF_R18"]["auto"] == rows["iresnet18"]["auto"]
    casia = rows["IR_CASIA"]
    assert (casia["input"], casia["channels"]) == (160, "rgb")
    assert casia["weights"] == "20180408-102900-casia-webface.pt"
    assert "facenet-pytorch" in casia["published"]
    assert rows["AdaFace_IR50"]["channels"] == "bgr"
    vit = rows["vit_tiny_patch8_112.cosface_ms1mv3"]
    assert (vit["architecture"], vit["auto"][1]) == ("vit_tiny_patch16_224", "blocks.1.norm1")
    assert vit["published"] == "huggingface.co/gaunernst"


def test_the_table_of_models_is_short():
    result = CliRunner().invoke(app, ["models"], catch_exceptions=False)
    assert "9: conv1 .. layer4.2.conv2" in result.stdout
    assert "timm:FOLDER" in result.stdout
    assert len(result.stdout.splitlines()) < 40


def test_layers_say_where_tokens_lie():
    found = listed("layers", "timm:vit_tiny_patch16_224=random:0", "--input-size", "64")
    rows = {row["layer"]: row for row in found["layers"]}
    norm = rows["blocks.1.norm1"]
    assert (norm["layout"], norm["prefix"], norm["height"], norm["auto"]) == ("tokens", 1, 4, True)
    assert (rows["patch_embed.proj"]["layout"], rows["patch_embed.proj"]["prefix"]) == ("channels_first", 0)


def test_a_size_is_for_models_that_bring_none():
    with pytest.raises(RequestError, match="must not be given for demo, which brings its own: leave it out"):
        CliRunner().invoke(app, ["layers", "demo", "--input-size", "64"], catch_exceptions=False)
