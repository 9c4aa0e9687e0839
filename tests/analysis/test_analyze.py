"""`leamfast analyze`: all tables of a run, with and without region masks."""

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from leamfast.analysis.analyze import analyze_run
from leamfast.cli.main import app
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from leamfast.store.index import write_index
from tests.analysis.conftest import FACE, planted, sharp

HEADERS = {
    "regions": "model,map,threshold,region,share,area,over_representation,low,high,n,"
    "sd,cv_within,cv_between,over_low,over_high",
    "asymmetry": "model,map,threshold,pair,right,left,index,area_index,low,high,n",
    "off_face": "model,map,threshold,share,area,over_representation,low,high,n,over_low,over_high",
    "layers": "model,threshold,map," + ",".join(REGIONS) + ",unknown",
    "agreement": "model,map,measure,mean,low,high,n,kind",
    "diagnostics": "model,map,warning,name,value,limit",
}


def analyze(root, *options):
    result = CliRunner().invoke(app, ["analyze", str(root), *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def finished(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "finished")


def test_every_table_is_written_and_named(finished):
    said = json.loads(analyze(finished, "--json").stdout)
    assert {path.name for path in (finished / "tables").iterdir()} == {f"{name}.csv" for name in HEADERS}
    for name, header in HEADERS.items():
        table = read(said[name])
        assert ",".join(table[0]) == header
        assert {len(line) for line in table} == {len(table[0])}
    assert said["rows"] == len(read(said["regions"])) - 1
    assert said["warnings"] == len(read(said["diagnostics"])) - 1 == sum(said["warnings_by_name"].values())
    assert (said["parser"], said["cannot_tell"]) in (("labels", []), (None, []))


def test_what_is_said_of_a_run_with_masks(finished):
    result = analyze(finished)
    assert result.stdout == ""
    for name in HEADERS:
        assert str(finished / "tables" / f"{name}.csv") in result.stderr
    assert "reasons to doubt a map" in result.stderr
    assert "tap " in result.stderr


def test_models_stand_one_below_the_other(faces, tmp_path):
    request = BatchRequest(
        data=faces, out=tmp_path / "two", model=("demo=random:0", "other:=demo=random:1"), align="none",
        layers=("conv1",), threads=1, backend="eager",
    )  # fmt: skip
    run_batch(request, note=lambda text: None)
    found = analyze_run(tmp_path / "two")
    models = ["demo", "other"]
    for rows, each in ((found.regions, 2 * 6 * 19), (found.asymmetry, 2 * 6 * 3), (found.off_face, 2 * 6)):
        assert [row.model for row in rows] == [name for name in models for _ in range(each)]
    assert [row.model for row in found.agreement] == ["demo", "demo", "other", "other"]
    assert [line[0] for line in found.layers] == [name for name in models for _ in range(6 * 3)]
    areas = [[row.area for row in found.regions if row.model == name] for name in models]
    assert areas[0] == areas[1]
    shares = [[row.share for row in found.regions if row.model == name] for name in models]
    assert shares[0] != shares[1]


def test_tables_are_the_same_when_made_again(finished):
    contents = []
    for _ in range(2):
        analyze(finished)
        contents.append({path.name: path.read_bytes() for path in (finished / "tables").iterdir()})
    assert contents[0] == contents[1]


def test_a_run_without_masks_has_the_tables_that_need_none(run):
    root = run([0, 0, 1, 1, 2, 2], sharp(6))
    result = analyze(root)
    assert "no region masks, and so no tables of regions: `leamfast batch --parser`" in result.stderr
    assert {path.name for path in (root / "tables").iterdir()} == {"agreement.csv", "diagnostics.csv"}
    said = json.loads(analyze(root, "--json").stdout)
    assert [said[name] for name in ("regions", "asymmetry", "off_face", "layers")] == [None] * 4
    assert said["rows"] == 0
    assert len(read(said["agreement"])) == 3
    assert len(read(said["diagnostics"])) == 1 + said["warnings"]


def test_regions_that_the_parser_cannot_tell_are_named(run):
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    known = ("face", "re", "le", "nose")
    root = run([0, 0, 1, 1], sharp(4), labels, known=known, parser="polygons")
    assert "parser polygons cannot tell: background, neck, cloth, rr," in analyze(root).stderr
    said = json.loads(analyze(root, "--json").stdout)
    assert said["parser"] == "polygons"
    assert sorted([*said["cannot_tell"], *known]) == sorted(REGIONS)
    assert {line[3] for line in read(said["regions"])[1:]} == set(known)


def test_rows_without_a_map_or_a_mask_count_nowhere(run):
    maps = np.ones((6, 8, 8))
    maps[0] = np.nan
    labels = np.array([FACE] * 6)
    labels[5] = NO_LABEL
    found = analyze_run(run([0, 0, 1, 1, 2, 2], maps, labels))
    assert {row.n for row in (*found.regions, *found.asymmetry, *found.off_face)} == {4}
    assert [row.n for row in found.agreement] == [2, 8]


def test_an_unfinished_run_is_said_to_be_one(run):
    root = run([0, 0, 1, 1], sharp(4), FACE, planted(4, face=1))
    write_index(root, [root / "shards/part-00000.h5"], 2, REGIONS)
    assert "is not complete: only finished shards are counted" in analyze(root).stderr


def test_a_run_without_images_has_no_tables(tmp_path):
    (tmp_path / "empty").mkdir()
    write_index(tmp_path / "empty", [], 1, REGIONS)
    with pytest.raises(RequestError, match="holds no usable image: its failures.csv says why"):
        analyze(tmp_path / "empty")
    assert not (tmp_path / "empty/tables").exists()
