"""Every command and every piece of code of the README, as printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from leamfast.engine.occlude_run import TABLES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(first_word: str) -> list[list[list[str]]]:
    """The commands of each shell block that begin with a word."""
    found = [
        [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line]
        for block in blocks("sh")
    ]
    return [[words for words in block if words[0] == first_word] for block in found]


def run(words: list[str], folder: Path) -> None:
    path = os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))
    command = [sys.executable, str(ROOT / "cli.py"), *words[1:]]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (words, done.stderr)


def test_the_two_commands_are_targets_of_the_makefile():
    targets = {words[1] for block in commands("make") for words in block}
    assert targets == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_synthetic_faces(tmp_path):
    block = next(block for block in commands("leamfast") if any("synth" in words for words in block))
    assert [words[1] for words in block] == ["synth", "batch", "analyze"]
    for words in block:
        run(words, tmp_path)
    assert (tmp_path / "OUT/tables/regions.csv").is_file()


def test_your_own_photos_and_reading_results(tmp_path, shared_data, monkeypatch):
    from leamfast.models.zoo import ZOO, build

    block = next(block for block in commands("leamfast") if block and "PHOTOS" in block[0])
    torch.save(build(ZOO["AF_R18"], seed=0).state_dict(), tmp_path / "backbone.pth")
    shutil.copy(shared_data / "mobilenet0.25_Final.pth", tmp_path)
    for person in ("id05", "id06"):
        shutil.copytree(shared_data / "photos" / person, tmp_path / "PHOTOS" / person)
    run(block[0], tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["maps"].shape == (5, 28, 28)
    assert names["embeddings"].shape == (5, 512)


def test_regions_of_real_faces_and_crops_by_themselves(tmp_path, shared_data):
    from leamfast.models.zoo import ZOO, build

    pytest.importorskip("dlib")
    parsed = next(block for block in commands("leamfast") if block and "polygons" in block[0])
    alone = next(block for block in commands("leamfast") if block and block[0][1] == "ingest")
    assert [words[1] for words in (*parsed, *alone)] == ["batch", "analyze", "ingest", "align"]
    torch.save(build(ZOO["AF_R18"], seed=0).state_dict(), tmp_path / "backbone.pth")
    shutil.copy(shared_data / "mobilenet0.25_Final.pth", tmp_path)
    for person in ("id05", "id06"):
        shutil.copytree(shared_data / "photos" / person, tmp_path / "PHOTOS" / person)
    for words in (*parsed, *alone):
        run(words, tmp_path)
    tables = {table.stem for table in (tmp_path / "PARSED/tables").iterdir()}
    assert tables == {"regions", "layers", "asymmetry", "off_face", "agreement", "diagnostics"}
    assert len(list((tmp_path / "ALIGNED").glob("*/*.png"))) == 5
    assert (tmp_path / "photos.csv").is_file()


def test_maps_of_one_person(tmp_path, shared_data):
    from leamfast.models.zoo import ZOO, build

    block = next(block for block in commands("leamfast") if any("compare" in words for words in block))
    assert [words[1] for words in block] == ["batch", "compare"]
    torch.save(build(ZOO["AF_R18"], seed=0).state_dict(), tmp_path / "backbone.pth")
    shutil.copy(shared_data / "mobilenet0.25_Final.pth", tmp_path)
    for person in ("id05", "id06"):
        shutil.copytree(shared_data / "photos" / person, tmp_path / "PHOTOS" / person)
    run(block[0], tmp_path)
    run([*block[1], "--emd-pairs", "2", "--emd-percents", "1,100"], tmp_path)
    assert {table.stem for table in (tmp_path / "EACH/tables").iterdir()} == {
        "similarity",
        "paper",
        "verdicts",
    }


def test_whether_a_map_is_the_persons(tmp_path, shared_data):
    from leamfast.models.zoo import ZOO, build

    block = next(block for block in commands("leamfast") if any("occlude" in words for words in block))
    assert [words[1] for words in block] == ["batch", "occlude"]
    torch.save(build(ZOO["AF_R18"], seed=0).state_dict(), tmp_path / "backbone.pth")
    shutil.copy(shared_data / "mobilenet0.25_Final.pth", tmp_path)
    for person in ("id05", "id06"):
        shutil.copytree(shared_data / "photos" / person, tmp_path / "PHOTOS" / person)
    run(block[0], tmp_path)
    (small,) = re.findall(r"`(--percents 1[^`]*)`", README)
    run([*block[1], *shlex.split(small)], tmp_path)
    tables = {table.stem for table in (tmp_path / "SEEN/tables").iterdir()}
    verdicts = (tmp_path / "SEEN/tables/specificity_verdicts.csv").read_text()
    assert tables == {
        "occlusion",
        "transfer",
        "specificity",
        "specificity_identities",
        "specificity_verdicts",
    }
    assert "not tested" not in verdicts
    listed = re.findall(r"`(\w+)\.csv`", README[README.index("| `SEEN/tables/`") :].split("\n\n")[0])
    assert set(TABLES) == set(listed)


@pytest.mark.slow
def test_your_own_model(faces, tmp_path):
    import leamfast

    given, compiled = (block for block in commands("leamfast") if any("CROPS" in words for words in block))
    with pytest.warns(Warning, match="deprecated"):
        traced = torch.jit.trace(leamfast.load_model("demo").network, torch.zeros(2, 3, 112, 112))
    traced.save(tmp_path / "net.pt")
    (tmp_path / "models.toml").write_text(blocks("toml")[0])
    for person in ("id0000", "id0001"):
        shutil.copytree(faces / person, tmp_path / "CROPS" / person)
    (by_options,) = given
    by_config = [*by_options[: by_options.index("--input-size")], "--config", "models.toml"]
    compile_, by_program = compiled
    run(compile_, tmp_path)
    for words in (by_options, by_config, by_program):
        shutil.rmtree(tmp_path / "OUT", ignore_errors=True)
        run(words, tmp_path)
        with leamfast.open_results(tmp_path / "OUT") as results:
            name = "demo" if words is by_program else "net"
            assert results.map(name, "layer2.0.conv1").shape == (8, 28, 28)


def test_a_run_that_is_planned_for_a_cluster(tmp_path, shared_data):
    """What `batch` and the job do with the same options: tests/cluster/test_submission.py."""
    from leamfast.models.zoo import ZOO, build

    plan, batch, job = (
        line for block in blocks("sh") for line in block.splitlines() if "--config run.toml" in line
    )
    assert batch.removeprefix("leamfast ") == plan.removeprefix("leamfast ").replace("plan", "batch", 1)
    assert job.endswith(f" -- python cli.py {batch.removeprefix('leamfast ')}")
    torch.save(build(ZOO["AF_R18"], seed=0).state_dict(), tmp_path / "backbone.pth")
    shutil.copy(shared_data / "mobilenet0.25_Final.pth", tmp_path)
    shutil.copytree(shared_data / "photos/id05", tmp_path / "photos/id05")
    (tmp_path / "run.toml").write_text(blocks("toml")[1].replace("/data/", f"{tmp_path}/"))
    run(shlex.split(plan), tmp_path)
    assert not (tmp_path / "run").exists()


def test_one_batch_in_python():
    import leamfast

    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    names = {"leamfast": leamfast, "crops": crops, "references": torch.randn(2, 128)}
    exec(blocks("python")[1], names)
    assert names["result"].maps["layer2.0.conv1"].shape[0] == 2


@pytest.mark.parametrize("name", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_linked_files_are_there(name):
    assert (ROOT / name).is_file()


def test_other_commands_are_run_by_their_own_tests():
    """`bench SUITE --small` takes minutes: tests/bench/test_SUITE.py runs it."""
    others = [words for block in commands("leamfast") for words in block if words[1] == "bench"]
    assert others == [["leamfast", "bench", suite, "--small"] for suite in ("truth", "maps", "kernels")]
    for words in others:
        source = (ROOT / "tests" / "bench" / f"test_{words[2]}.py").read_text(encoding="utf-8")
        assert f'"bench", "{words[2]}", "--small"' in source
