"""Data sets that are damaged, strange or made to do harm, as a user meets them.

What is wrong with a request is one sentence and status 2; what is wrong with an image is its row in
failures.csv; nothing is a traceback, and nothing waits for ever.
"""

import csv
import io
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from leamfast import open_results
from leamfast.cli.main import app, main
from leamfast.errors import RequestError

MODEL = ["--model", "demo=random:0", "--align", "none", "--layers", "conv1", "--threads", "1"]
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found, sorry</body></html>\n"
PEOPLE = ("ann/0.png", "ann/1.png", "bob/0.png", "bob/1.png")
RECORD = 0xCED7230A


def png(seed: int, side: int = 112) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def put(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def people(root: Path, names: Sequence[str] = PEOPLE) -> Path:
    for seed, name in enumerate(names):
        put(root / name, png(seed))
    return root


def table(root: Path, text: bytes | str) -> Path:
    return put(people(root) / "list.csv", text)


def pairs(root: Path, text: str) -> Path:
    people(root, ("Ann/Ann_0001.png", "Ann/Ann_0002.png", "Bob/Bob_0001.png"))
    return put(root / "pairs.txt", text).parent


def recordio(root: Path, index: Callable[[str], str] = str, data: Callable[[bytes], bytes] = bytes) -> Path:
    """Six records of three people; `index` and `data` may change the two files."""
    records, lines = b"", ""
    for number in range(1, 7):
        body = struct.pack("<IfQQ", 0, float(number // 2), number, 0) + png(number)
        lines += f"{number}\t{len(records)}\n"
        records += struct.pack("<II", RECORD, len(body)) + body + bytes(-len(body) % 4)
    put(root / "train.rec", data(records))
    return put(root / "train.idx", index(lines)).parent


def bomb() -> bytes:
    """A PNG that says that it has 900 million pixels."""
    data = bytearray(png(1))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def parquet(root: Path, **columns: object) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    people(root)
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), root / "list.parquet")
    return root / "list.parquet"


def not_utf8(root: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    ends = pyarrow.py_buffer(struct.pack("<2i", 0, 2))
    name = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, pyarrow.py_buffer(b"\xffe")])
    return parquet(root, path=["ann/0.png"], identity=name)


def linked(root: Path) -> Path:
    people(root)
    (root / "ann" / "all").symlink_to(root)
    return root


def pipe(root: Path) -> Path:
    os.mkfifo(put(root / "x", "").with_name("faces.csv"))
    return root / "faces.csv"


ROW = "path,identity\nann/0.png,Ann\n"
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pairs.txt with too few": (
        lambda d: pairs(d, "2\t3\nAnn\t1\t2\nAnn\t1\tBob\t1\n"),
        "must hold 6 pairs of one person (2 x 3), as its first line says, got 1",
    ),
    "pairs.txt with too many": (
        lambda d: pairs(d, "1\nAnn\t1\t2\nAnn\t1\t2\nAnn\t1\tBob\t1\n"),
        "must hold 1 pairs of one person (1 x 1), as its first line says, got 2",
    ),
    "pairs.txt with a path": (lambda d: pairs(d, "1\n../Ann\t1\t2\n"), "got '../Ann' (--format folders"),
    "pairs.txt with a NUL byte": (lambda d: pairs(d, "1\nAnn\0\t1\t2\n"), r"got 'Ann\x00'"),
    "RecordIO with a negative length": (
        lambda d: recordio(d, data=lambda b: b[:4] + struct.pack("<i", -5) + b[8:]),
        "the .idx places record 1 at byte 0, where none starts",
    ),
    "RecordIO whose index lies": (
        lambda d: recordio(d, index=lambda lines: lines.replace("1\t0", "1\t8")),
        "the .idx places record 1 at byte 8, where none starts",
    ),
    "RecordIO with negative numbers": (
        lambda d: recordio(d, index=lambda lines: lines.replace("1\t0", "1\t-8")),
        "line 1 must be a record's number, a tab and its offset",
    ),
    "RecordIO whose index is a web page": (
        lambda d: recordio(d, index=lambda _: PAGE.decode()),
        "line 1 must be a record's number",
    ),
    "RecordIO without an index": (lambda d: put(d / "a.rec", PAGE), "there is no file"),
    "a verification set that is a web page": (lambda d: put(d / "a.bin", PAGE), "it is no pickle"),
    "a tar that is a web page": (lambda d: put(d / "a.tar", PAGE * 20), "it is no tar archive"),
    "a compressed tar": (lambda d: put(d / "a.tar", b"\x1f\x8b" * 600), "it is compressed (gzip): unpack it"),
    "a manifest that is a web page": (lambda d: put(d / "a.csv", PAGE), "names no column 'path'"),
    "a manifest that is a picture": (lambda d: put(d / "a.csv", png(1)), "manifest must be UTF-8"),
    "a path that leaves": (
        lambda d: table(d, ROW + "../secret.png,Ann\n"),
        "line 3, has the path '../secret.png', which leaves the manifest's folder: write it absolutely",
    ),
    "a mask that leaves": (
        lambda d: table(d, "path,identity,label\nann/0.png,Ann,ann/../../m.png\n"),
        "has the label 'ann/../../m.png', which leaves the manifest's folder",
    ),
    "a file of two people": (
        lambda d: table(d, ROW + "ann/0.png,Bob\n"),
        "line 3, repeats the path 'ann/0.png' of line 2: list an image once",
    ),
    "a file of two people, spelled otherwise": (
        lambda d: table(d, ROW + f"{d}/bob/../ann/0.png,Bob\n"),
        "of line 2: list an image once",
    ),
    "a NUL byte": (lambda d: table(d, ROW + "ann/1\0.png,Ann\n"), "line 3, has a NUL byte in column 'path'"),
    "a field of 10 MB": (
        lambda d: table(d, ROW + "ann/1.png," + "x" * 10_000_000 + "\n"),
        "line 3, is not well-formed CSV: field larger than field limit",
    ),
    "a quote that does not end": (
        lambda d: table(d, ROW + '"' + "ann/1.png,Ann\n" * 50_000),
        "is not well-formed CSV",
    ),
    "another encoding": (lambda d: table(d, (ROW + "ann/1.png,Zoë\n").encode("utf-16")), "must be UTF-8"),
    "ten thousand columns": (
        lambda d: table(d, "path,identity," + ",".join(f"c{i}" for i in range(10_000)) + "\n"),
        "names 10000 metadata columns, at most 200 fit",
    ),
    "a rect the wrong way round": (
        lambda d: table(d, "path,identity,rect\nann/0.png,Ann,50 50 10 10\n"),
        "line 2, has the rect '50 50 10 10': write x1 y1 x2 y2",
    ),
    "Parquet with lists": (
        lambda d: parquet(d, path=[["a"]], identity=["Ann"]),
        "row 1, column 'path', with a list",
    ),
    "Parquet with bytes": (
        lambda d: parquet(d, path=["a"], identity=[b"Ann"]),
        "row 1, column 'identity', with a bytes",
    ),
    "Parquet in another encoding": (not_utf8, "must be UTF-8"),
    "Parquet that is a web page": (lambda d: put(d / "a.parquet", PAGE), "must be a Parquet file"),
    "a loop of links": (linked, "a link to a folder above it: remove the link"),
    "a name that is not UTF-8": (
        lambda d: people(d, (*PEOPLE, "z\udcff/0.png")),
        r"got the path 'z\udcff/0.png' of 'z\udcff/0.png': rename it",
    ),
    "a folder whose name is not UTF-8": (lambda d: people(d / "z\udcff"), r"z\udcff': rename it"),
    "a pipe": (pipe, "there is no such file or folder"),
    "a device": (lambda _: Path("/dev/zero"), "there is no such file or folder"),
    "a name that is too long": (lambda d: d / ("x" * 5000), "file name too long"),
}


@pytest.mark.parametrize("command", ["ingest", "batch"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_sentence_and_status_2(
    case: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, words = REFUSED[case]
    out = tmp_path / "out.csv"
    options = MODEL if command == "batch" else []
    data = make(tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["leamfast", command, str(data), "--out", str(out), *options])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("leamfast: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err.encode(errors="backslashreplace").decode()
    assert not out.exists()


def test_a_pickle_that_runs_code_is_refused_unread(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for number, content in enumerate(
        (_Touch(trace), ([_Touch(trace)], [True]), ([png(1)] * 2, _Touch(trace)))
    ):
        for protocol in range(6):
            put(tmp_path / f"{number}.bin", pickle.dumps(content, protocol))
            result = CliRunner().invoke(app, ["ingest", str(tmp_path / f"{number}.bin"), "--out", "x.csv"])
            assert "DATA must be a pickle of (images, is_same)" in str(result.exception)
    assert not trace.exists()


def run(data: Path, out: Path, *options: object) -> tuple[dict[str, tuple[str, str]], list[str], str]:
    """Of a run that must finish: its failures by path, the paths of its images, and what it said."""
    words = ["batch", data, "--out", out, *MODEL, *options, "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    with (out / "failures.csv").open(newline="", encoding="utf-8") as stream:
        failures = {row["path"]: (row["stage"], row["reason"]) for row in csv.DictReader(stream)}
    with open_results(out) as results:
        return failures, list(results.text("image/path")), result.stderr


def test_what_is_no_picture_is_in_failures(tmp_path: Path) -> None:
    data = people(tmp_path / "data")
    os.mkfifo(data / "ann" / "pipe.png")
    (data / "ann" / "gone.png").symlink_to("/nowhere/a.png")
    (data / "ann" / "itself.png").symlink_to("itself.png")
    (data / "ann" / "device.png").symlink_to("/dev/zero")
    put(data / "bob" / "empty.png", b"")
    put(data / "bob" / "page.jpg", PAGE)
    put(data / "bob" / "cut.png", png(9)[:-30])
    put(data / "bob" / "script.png", b"%!PS\n(/etc/passwd) run\n")
    put(data / "bob" / "vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    put(data / "bob" / "bomb.png", bomb())
    Image.new("RGB", (30, 20)).save(data / "bob" / "wide.png")
    put(data / "bob" / "again.png", png(3))
    put(data / "bob" / "folder.png" / "inside.png", png(20))
    if os.geteuid():
        put(data / "bob" / "secret.png", png(21)).chmod(0)
    failures, used, _ = run(data, tmp_path / "out")
    unknown = ("decode", "not an image of a known format, or its header is damaged")
    expected = {
        "ann/pipe.png": ("decode", "is not a regular file"),
        "ann/gone.png": ("decode", "file not found"),
        "ann/itself.png": ("decode", "file cannot be read: too many levels of symbolic links"),
        "ann/device.png": ("decode", "is not a regular file"),
        "bob/empty.png": ("decode", "file is empty"),
        "bob/page.jpg": unknown,
        "bob/cut.png": ("decode", "file is cut off or damaged"),
        "bob/script.png": unknown,
        "bob/vector.png": unknown,
        "bob/bomb.png": ("decode", "image has more than 89478485 pixels, the limit"),
        "bob/wide.png": ("align", "crop is 30x20, not square"),
        "bob/again.png": ("duplicate", "same picture as bob/1.png"),
    }
    if os.geteuid():
        expected["bob/secret.png"] = ("decode", "no permission to read the file")
    # The picture that comes second is the duplicate, whichever it is.
    if "bob/1.png" in failures:
        expected["bob/1.png"] = ("duplicate", "same picture as bob/again.png")
        del expected["bob/again.png"]
    assert failures == expected
    assert len(used) == 5
    assert "bob/folder.png/inside.png" in used


def test_absolute_paths_reach_no_device_and_wait_for_nothing(tmp_path: Path) -> None:
    rows = "/dev/zero,Eve\n/dev/stdin,Eve\n/proc/kmsg,Eve\n/proc/self/mem,Eve\n/etc/hostname,Eve\n"
    data = table(tmp_path / "data", ROW + "ann/1.png,Ann\n" + rows)
    failures, used, _ = run(data, tmp_path / "out")
    assert used == ["ann/0.png", "ann/1.png"]
    assert {stage for stage, _ in failures.values()} == {"decode"}
    assert len(failures) == 5


def test_rects_and_spans_outside_are_in_failures(tmp_path: Path) -> None:
    text = (
        "path,identity,inside,spans,rect\n"
        "ann/0.png,Ann,,,0 0 112 112\n"
        "ann/1.png,Ann,,,0 0 112 113\n"
        "ann/1.png,Ann,,,12 12 112 112\n"
        "ann/1.png,Ann,,,0 0 999999999 999999999\n"
        "bob/0.png,Bob,x,999999999999999999:1,\n"
        "bob/0.png,Bob,y,0:50,\n"
        f"bob/0.png,Bob,z,{'0:9000 ' * 13_000}0:1,\n"
    )
    failures, used, _ = run(table(tmp_path / "data", text), tmp_path / "out")
    assert used == ["ann/0.png@0,0,112,112", "ann/1.png@12,12,112,112"]
    cut = ("decode", "the image lies beyond the end of its file, which is cut off")
    assert failures.pop("ann/1.png@0,0,112,113") == (
        "decode",
        "rect 0 0 112 113 is not within the 112x112 picture",
    )
    assert failures.pop("ann/1.png@0,0,999999999,999999999")[1].startswith("rect 0 0 999999999")
    assert failures.pop("bob/0.png#x") == cut
    assert {stage for stage, _ in failures.values()} == {"decode"}


def test_recordio_cut_in_the_middle_keeps_its_first_half(tmp_path: Path) -> None:
    data = recordio(tmp_path / "data", data=lambda records: records[: len(records) // 2])
    failures, used, said = run(data, tmp_path / "out")
    assert used == ["train.rec#1", "train.rec#2", "train.rec#3"]
    assert "left out: 3 x record that reaches beyond the end of the file" in said
    assert set(failures) == {"train.rec#1"}  # the only picture of its person


STRANGE = [
    "夏目 漱石", "محمد", "Żółw", "👩‍🚀", "\u202eeve", "a\u0301", "á", "100%s%n{0}", "$(id)`id`;#",
    'O\'Neil, "Pat"', "two\nlines", "ta\tb\rc\x1b[31m", "x" * 250, "長" * 80, "-rf", "con", "a\\b",
    "=1+1",
]  # fmt: skip


def test_people_of_every_name(tmp_path: Path) -> None:
    data = people(tmp_path / "data", [f"{name}/{name[:40]}{i}.png" for name in STRANGE for i in (0, 1)])
    failures, used, _ = run(data, tmp_path / "out")
    assert failures == {}
    assert sorted(used) == sorted(str(file.relative_to(data)) for file in data.rglob("*.png"))
    with open_results(tmp_path / "out") as results:
        assert sorted(results.text("identity/name")) == sorted(STRANGE)
    listed = tmp_path / "list.csv"
    assert CliRunner().invoke(app, ["ingest", str(data), "--out", str(listed)]).exit_code == 0
    assert run(listed, tmp_path / "again")[1] == [f"data/{path}" for path in used]


def test_identities_with_slashes_lead_nowhere(tmp_path: Path) -> None:
    long = "n" * 100_000
    rows = zip(PEOPLE, ("../../a/b", "../../a/b", long, long), strict=True)
    data = table(tmp_path / "data", "path,identity\n" + "".join(f"{path},{name}\n" for path, name in rows))
    failures, used, _ = run(data, tmp_path / "out")
    assert (failures, used) == ({}, list(PEOPLE))
    with open_results(tmp_path / "out") as results:
        assert list(results.text("identity/name")) == ["../../a/b", long]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_members_of_a_tar_lead_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "data" / "faces.tar"
    file.parent.mkdir()
    names = ("../../out.png", "/tmp/leamfast-absolute.png", "a\nb.png", "deep/" * 500 + "x.png")
    with tarfile.open(file, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"link{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for seed, name in enumerate(names):
            for path, content in ((name, png(seed)), (name.replace(".png", ".cls"), b"../../eve")):
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    failures, used, said = run(file, tmp_path / "out")
    assert failures == {}
    assert used == [f"faces.tar#{name}" for name in names]
    assert "left out: 5 x member that is a link, sparse or no file" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    assert not Path("/tmp/leamfast-absolute.png").exists()


def test_masks_that_cannot_be_are_in_failures_and_their_images_used(tmp_path: Path) -> None:
    data = people(tmp_path / "data")
    for name, values in {"sound": 18, "unknown": 255, "other": 19}.items():
        Image.new("L", (112, 112), values).save(data / f"{name}.png")
    Image.new("L", (50, 112)).save(data / "narrow.png")
    masks = ("sound.png", "unknown.png", "other.png", "narrow.png")
    rows = "".join(f"{path},{path[:3]},{mask}\n" for path, mask in zip(PEOPLE, masks, strict=True))
    put(data / "manifest.csv", "path,identity,label\n" + rows)
    failures, used, _ = run(data, tmp_path / "out")
    assert used == list(PEOPLE)
    assert {path: stage for path, (stage, _) in failures.items()} == {
        "bob/0.png": "label",
        "bob/1.png": "label",
    }
    assert "holds the value 19" in failures["bob/0.png"][1]
    assert "is 50x112 where the image is 112x112" in failures["bob/1.png"][1]


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "AF_R18={page}"],
        ["--model", "mobilefacenet={page}"],
        ["--model", "{page}", "--input-size", 112, "--mean", "0,0,0", "--std", "1,1,1", "--channels", "rgb"],
        ["--model", "demo=random:0", "--detector", "retinaface={page}"],
        ["--model", "demo=random:0", "--detector", "dlib={page}"],
    ],
)
def test_weights_that_are_a_web_page_are_named_and_refused(options: list, tmp_path: Path) -> None:
    if "dlib={page}" in options:
        pytest.importorskip("dlib")
    page = put(tmp_path / "weights.pt", PAGE)
    words = [str(word).format(page=page) for word in options]
    align = [] if "--detector" in words else ["--align", "none"]
    data, out = people(tmp_path / "data"), tmp_path / "out"
    result = CliRunner().invoke(app, ["batch", str(data), "--out", str(out), *words, *align])
    assert isinstance(result.exception, RequestError), result.exception
    assert str(page) in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not out.exists()


class _Eleven(nn.Module):
    """Logits of 11 classes, those of another data set."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images[:, :1].expand(-1, 11, -1, -1), images


@pytest.mark.parametrize("kind", ["farl", "bisenet"])
def test_a_parser_of_other_classes_or_a_web_page_is_refused_before_the_run(kind: str, tmp_path: Path) -> None:
    from facer.face_detection import retinaface

    network = retinaface.RetinaFace(cfg=retinaface.cfg_mnet, phase="test")
    torch.save(network.state_dict(), tmp_path / "detector.pth")
    eleven, page = tmp_path / "eleven.pt", put(tmp_path / "page.pt", PAGE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.", Warning)
        torch.jit.save(torch.jit.script(_Eleven()), eleven)
    for file, words in ((eleven, "must give 19 classes"), (page, "it is a web page, as a download gives")):
        command = ["batch", people(tmp_path / "data"), "--out", tmp_path / "out", "--model", "demo=random:0"]
        command += ["--detector", f"retinaface={tmp_path / 'detector.pth'}", "--parser", f"{kind}={file}"]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert isinstance(result.exception, RequestError), result.exception
        assert words in str(result.exception)
        assert str(file) in str(result.exception)
        assert "\n" not in str(result.exception)
        assert not (tmp_path / "out").exists()
