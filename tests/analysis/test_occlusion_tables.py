"""Tables of occlusion from a result folder to CSV files."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from leamfast.analysis import analyze
from leamfast.analysis import occlusion_tables as module
from leamfast.analysis.analyze import analyze_run, write_analysis
from leamfast.analysis.occlusion_tables import occlusion_of, occlusion_tables, write_occlusion
from leamfast.cli.main import app
from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS
from leamfast.store.index import write_index
from leamfast.store.occlusion import CONTROLS
from leamfast.store.occlusion_block import OcclusionBlock, write_block
from leamfast.store.occlusion_index import occlusion_sha256
from leamfast.store.pair_index import parts_sha256
from leamfast.store.part import PartError, open_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import write_settings
from tests.analysis.conftest import sharp
from tests.analysis.occluded import Occluded, arrays_of, axes_of, planted

PEOPLE = [0, 0, 1, 1, 2, 2]
STEPS = (0.0, 50.0, 100.0)
ALWAYS = {"occlusion", "transfer", "specificity", "specificity_identities", "specificity_verdicts"}
HEADERS = {
    "occlusion": "source_model,evaluated_model,map,control,threshold,fill,drop,drop_low,drop_high,n",
    "transfer": "source_model,evaluated_model,map,threshold,fill,drop,drop_low,drop_high,random,shifted,"
    "other_identity,of_source,specificity,specificity_low,specificity_high,n,people",
    "specificity": "model,map,threshold,fill,drop",
    "specificity_identities": "model,map,identity,images,drop,other_identity,specificity,bc_same,bc_other,"
    "bc_difference,rank",
    "specificity_verdicts": "model,map,threshold,fill,verdict,sentence",
    "within_person": "model,map,threshold,fill,against,images,drop,low,high,own_minus",
    "fills": "model,map,compared_at,level,fill,drop,low,high,psnr,ssim,n,people",
    "groups": "source_model,evaluated_model,map,threshold,fill,columns,group,drop,drop_low,drop_high,n,"
    "people,few,rest,difference,difference_low,difference_high,d,p,p_adjusted",
    "curves": "source_model,evaluated_model,map,control,fill,curve,percent,cosine,low,high,n",
    "curve_areas": "source_model,evaluated_model,map,control,fill,curve,area,low,high,n,people,own_minus,"
    "own_minus_low,own_minus_high,p,p_adjusted",
}


def everything(people=PEOPLE):
    """All controls, two fills and curves of random drops."""
    rng = np.random.default_rng(0)
    rows = len(people)
    axes = axes_of(("a", "fused"), (1.0, 5.0), CONTROLS, ("black", "blur"), (0, 1), STEPS)
    seen = (rows, 2, 2, 2)
    curves = (rows, 2, len(CONTROLS), 2, len(STEPS))
    return axes, arrays_of(
        axes, rng.uniform(0, 0.5, (rows, 2, 2, len(CONTROLS), 2, 2)), rng.integers(1, 4, rows),
        psnr=rng.uniform(20, 40, seen).astype(np.float32), ssim=rng.uniform(0.5, 1, seen).astype(np.float32),
        deletion=rng.random(curves, np.float32), insertion=rng.random(curves, np.float32),
    )  # fmt: skip


@pytest.fixture
def occluded(run):
    """A run with planted maps whose images were occluded."""
    root = run(PEOPLE, sharp(len(PEOPLE)))
    folder = RunFolder(root)
    part = folder.part(0)
    with open_part(part) as file:
        parts = parts_sha256([str(file.attrs["digest"])])
    folder.occlusion.mkdir()
    write_settings(folder.occlude_settings, {}, {"parts": parts})
    sha256 = occlusion_sha256(folder, parts)
    write_block(folder.occlusion, OcclusionBlock(0, 1, 0, len(PEOPLE), sha256, {("m", "m"): everything()}))
    write_index(root, [part], 1, REGIONS)
    return root


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_every_table_of_a_result_folder(occluded):
    tables = occlusion_tables(occluded)
    planted_tables = occlusion_of(Occluded(PEOPLE, {("m", "m"): everything()}, size=8))
    assert repr(tables.occlusion) == repr(planted_tables.occlusion)
    written = write_occlusion(occluded, tables)
    assert set(written) == set(HEADERS) - {"groups"}
    for name, path in written.items():
        lines = read(path)
        assert path == occluded / "tables" / f"{name}.csv"
        assert ",".join(lines[0]).startswith(HEADERS[name])
        assert {len(line) for line in lines} == {len(lines[0])}
        count = tables.count(name)
        assert len(lines) - 1 == count > 0


def test_analyze_writes_them_too(occluded):
    written = write_analysis(occluded, analyze_run(occluded))
    assert set(written) >= ALWAYS
    assert {path.name for path in (occluded / "tables").iterdir()} == {f"{name}.csv" for name in written}
    assert read(written["specificity_verdicts"])[1][:5] == ["m", "a", "1", "black", "no better than random"]
    result = CliRunner().invoke(app, ["analyze", str(occluded), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    json.loads(result.stdout)


def test_a_run_that_was_not_occluded_has_none(run):
    root = run(PEOPLE, sharp(len(PEOPLE)))
    with pytest.raises(RequestError, match=r"nothing of .* was occluded: run `leamfast occlude"):
        occlusion_tables(root)
    assert analyze_run(root).occlusion is None
    assert not ALWAYS & set(write_analysis(root, analyze_run(root)))


def test_groups_are_written_where_there_are_columns(tmp_path):
    axes, arrays = everything()
    results = Occluded(PEOPLE, {("m", "m"): (axes, arrays)}, identity={"sex": ["f", "m", "f"]})
    written = write_occlusion(tmp_path, occlusion_of(results))
    lines = read(written["groups"])
    assert ",".join(lines[0]).startswith(HEADERS["groups"])
    assert {line[6] for line in lines[1:]} == {"f", "m"}
    assert {line[lines[0].index("few")] for line in lines[1:]} == {"True"}


def test_an_older_table_goes_where_the_new_one_has_no_rows(tmp_path):
    results = Occluded(PEOPLE, {("m", "m"): everything()}, identity={"sex": ["f", "m", "f"]})
    assert write_occlusion(tmp_path, occlusion_of(results))["groups"].is_file()
    written = write_occlusion(tmp_path, occlusion_of(results, groups=[]))
    assert (
        {path.stem for path in (tmp_path / "tables").iterdir()} == set(written) == set(HEADERS) - {"groups"}
    )


def test_analyze_takes_the_groups_and_computes_occlusion_once(occluded, monkeypatch):
    calls = []

    def counted(results, groups=None):
        calls.append(groups)
        return occlusion_of(results, groups)

    monkeypatch.setattr(analyze, "occlusion_of", counted)
    (occluded / "tables").mkdir()
    (occluded / "tables/groups.csv").write_text("columns,group\nsex,f\n")  # a column that is gone
    result = CliRunner().invoke(app, ["analyze", str(occluded), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["occlusion"]
    assert calls == [None]
    assert not (occluded / "tables/groups.csv").exists()
    with pytest.raises(RequestError, match="got sex"):
        analyze_run(occluded, [("sex",)])


def test_an_unknown_column_is_refused_before_anything_is_read():
    results = planted(PEOPLE, axes_of(), np.ones((6, 1, 1)))
    with pytest.raises(RequestError, match="got sex: the run has no metadata columns"):
        occlusion_of(results, groups=[("sex",)])
    assert results.reads == 0


def test_rows_are_read_once():
    results = Occluded(PEOPLE, {("m", "m"): everything()}, identity={"sex": ["f", "m", "f"]})
    occlusion_of(results)
    assert results.reads == 1


def test_damaged_pairs_name_the_command_that_makes_them_again(monkeypatch):
    def damaged(*args):
        raise PartError("pairs-m-a-C-00000.h5 is damaged")

    monkeypatch.setattr(module, "_bc", damaged)
    with pytest.raises(RequestError, match="is damaged: run `leamfast compare planted`"):
        occlusion_of(planted(PEOPLE, axes_of(), np.ones((6, 1, 1))))


def test_tables_are_the_same_when_made_again():
    one, other = (occlusion_of(Occluded(PEOPLE, {("m", "m"): everything()})) for _ in range(2))
    for name in ("occlusion", "within_person", "fills", "curves", "curve_areas"):
        assert repr(getattr(one, name)) == repr(getattr(other, name))


def test_maps_of_models_that_were_not_their_own_have_no_verdict():
    results = Occluded(PEOPLE, {("o", "m"): everything()})
    found = occlusion_of(results)
    assert found.count("transfer") == 2 * 2 * 2
    assert found.verdicts == found.specificity == found.within_person == found.fills == []
    assert found.count("specificity_identities") == 0
    assert found.count("curve_areas") > 0
