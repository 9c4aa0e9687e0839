"""WebDataset shards: what a sample is, whose it is, and what is left of damaged tars."""

import gzip
import io
import json
import os
import random
import re
import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leamfast.datasets.decoding import DecodeError, decode_image, read_image
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.datasets.webdataset import read_webdataset
from leamfast.errors import RequestError


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def header(name: bytes, size: int, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A ustar header, by its public description."""
    block = struct.pack("100s8s8s8s12s12s", name, b"0000644\0", b"0\0", b"0\0", b"%011o\0" % size, b"0\0")
    block += b" " * 8 + kind + struct.pack("100s8s", link, b"ustar\x0000")
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: str | bytes, data: bytes) -> bytes:
    name = name.encode() if isinstance(name, str) else name
    return header(name, len(data)) + data + bytes(-len(data) % 512)


def write(file: Path, *members: bytes, end: bytes = bytes(1024)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(members) + end)
    return file


def fields(**values: object) -> bytes:
    return json.dumps(values).encode()


def identities(manifest: Manifest) -> list[tuple[str, str]]:
    return [(entry.inside, entry.identity) for entry in manifest.entries]


def check_images(manifest: Manifest, images: dict[str, bytes]) -> None:
    assert {entry.inside for entry in manifest.entries} <= set(images)
    for entry in manifest.entries:
        decoded = read_image(manifest.resolve(entry), entry.spans)
        np.testing.assert_array_equal(decoded.pixels, decode_image(images[entry.inside]))


def test_samples_of_a_shard(tmp_path: Path) -> None:
    images = {"a/1.png": picture(1), "a/2.JPG": picture(2, "JPEG"), "b/1.webp": picture(3, "WEBP")}
    file = write(
        tmp_path / "faces.tar",
        header(b"a/", 0, b"5"),
        member("a/1.png", images["a/1.png"]),
        member("a/1.cls", b"7\n"),
        member("b/1.cls", b" Zo\xc3\xab "),
        member("b/1.webp", images["b/1.webp"]),
        member("a/2.cls", b"7"),
        member("a/2.JPG", images["a/2.JPG"]),
        member("a/2.seg.png", picture(9)),
        member("a/2.npy", b"x"),
        member("README", b"x"),
        member("a/.hidden.png", picture(9)),
        member("a/._1.png", b"x"),
    )
    manifest = read_webdataset(file)
    assert identities(manifest) == [("a/1.png", "7"), ("a/2.JPG", "7"), ("b/1.webp", "Zoë")]
    assert {entry.path for entry in manifest.entries} == {"faces.tar"}
    assert (manifest.root, manifest.columns, manifest.ignored, manifest.left_out) == (tmp_path, (), 5, {})
    check_images(manifest, images)


def test_the_identity_is_the_class_then_json_then_text(tmp_path: Path) -> None:
    members = []
    for name, files in {
        "a": {".cls": b"1", ".json": fields(identity="no", label="no"), ".txt": b"no"},
        "b": {".txt": b"no", ".json": fields(label="no", identity=2)},
        "c": {".json": fields(label="3"), ".txt": b"no"},
        "d": {".json": fields(age=4, identity=None), ".txt": b"4"},
        "e": {".txt": b"\xef\xbb\xbf5\r\n"},
        "f": {".cls": b" \n", ".json": fields(identity=[1], label=""), ".txt": b"6"},
    }.items():
        members += [member(name + suffix, data) for suffix, data in files.items()]
        members.append(member(name + ".png", picture(0)))
    manifest = read_webdataset(write(tmp_path / "x.tar", *members))
    assert identities(manifest) == [(f"{name}.png", str(number)) for number, name in enumerate("abcdef", 1)]
    assert manifest.left_out == {}


def test_scalars_of_the_json_are_metadata(tmp_path: Path) -> None:
    def sample(name: str, **values: object) -> bytes:
        return member(f"{name}.json", fields(**values)) + member(f"{name}.png", picture(0))

    file = write(
        tmp_path / "x.tar",
        sample("a", identity="ann", label="n", age=30, smile=True, box=[1, 2], more={"x": 1}),
        sample("b", identity="bob", age=31.5, city=" Bern ", none=None),
        sample(
            "c", identity="cat", sha1="x", path="y", inside="z", **{"a/b": 1, " age": 2, "age ": 2, "": 3}
        ),
        sample("d", identity="dan", age="a\0b", city="\ud800"),
    )
    manifest = read_webdataset(file)
    assert manifest.columns == ("age", "smile", "city", "none")
    assert [tuple(entry.metadata[name] for name in manifest.columns) for entry in manifest.entries] == [
        ("30", "True", "", ""),
        ("31.5", "", "Bern", ""),
        ("", "", "", ""),
        ("", "", "", ""),
    ]
    assert manifest.left_out == {
        "metadata value whose key cannot name a column": 7,
        "metadata value that is not UTF-8 or holds a NUL byte": 2,
    }


def test_columns_are_limited(tmp_path: Path) -> None:
    values = {f"key{number}": number for number in range(203)}
    file = write(
        tmp_path / "x.tar",
        member("a.json", fields(identity=1, **values)),
        member("a.png", picture(0)),
    )
    manifest = read_webdataset(file)
    assert len(manifest.columns) == 200
    assert manifest.left_out == {"metadata value whose key cannot name a column": 3}


def test_several_images_of_a_sample(tmp_path: Path) -> None:
    images = {"a.left.png": picture(0), "a.png": picture(1), "a.jpg": picture(2, "JPEG")}
    members = [member(name, data) for name, data in images.items()]
    manifest = read_webdataset(write(tmp_path / "x.tar", *members, member("a.json", fields(label=1, age=2))))
    assert identities(manifest) == [("a.png", "1"), ("a.jpg", "1")]
    first, second = manifest.entries
    assert first.metadata == second.metadata == {"age": "2"}
    assert first.metadata is not second.metadata
    check_images(manifest, images)


def test_a_folder_of_shards_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write(
            tmp_path / f"faces-{number}.tar",
            member("a.png", picture(number)),
            member("a.cls", b"%d" % (number % 9)),
        )
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".faces-0.tar").touch()
    (tmp_path / "old.tar").mkdir()
    manifest = read_webdataset(tmp_path)
    assert [entry.name for entry in manifest.entries] == [
        "faces-1.tar#a.png",
        "faces-10.tar#a.png",
        "faces-9.tar#a.png",
    ]
    assert manifest.identities == ("1", "0")
    for entry, seed in zip(manifest.entries, (1, 10, 9), strict=True):
        pixels = read_image(manifest.resolve(entry), entry.spans).pixels
        np.testing.assert_array_equal(pixels, decode_image(picture(seed)))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes(form: int, tmp_path: Path) -> None:
    long = "/".join(["a folder"] * (15 if form == tarfile.USTAR_FORMAT else 60))
    images = {f"{long}/{name}.png": picture(number) for number, name in enumerate(("a", "ü", "名前"))}
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
        for name, data in images.items():
            for file, content in ((name, data), (name.replace(".png", ".cls"), b"1")):
                info = tarfile.TarInfo(file)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    manifest = read_webdataset(tmp_path / "x.tar")
    assert [entry.inside for entry in manifest.entries] == list(images)
    check_images(manifest, images)


def test_names_of_members_lead_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    names = ["../../evil.png", "/etc/evil.png", f"{tmp_path}/evil.png", "C:\\evil.png", "a\n.png"]
    members = [part for name in names for part in (member(name, picture(0)), member(name[:-3] + "cls", b"1"))]
    manifest = read_webdataset(write(folder / "x.tar", *members))
    assert [entry.inside for entry in manifest.entries] == names
    assert {manifest.resolve(entry) for entry in manifest.entries} == {folder / "x.tar"}
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "x.tar"]


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    sparse = bytearray(header(b"c.png", 512, b"S"))
    sparse[257:265] = b"ustar  \0"
    sparse[386:410] = b"%011o\0%011o\0" % (0, 512)
    sparse[483:495] = b"%011o\0" % 4096
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    good = [member("a.png", picture(1)), member("a.cls", b"1")]
    file = write(
        tmp_path / "x.tar",
        *good,
        member("a.png", picture(2)),
        header(b"b.png", 0, b"2", b"a.png"),
        header(b"b2.png", 0, b"1", b"a.png"),
        header(b"b3.png", 0, b"6"),
        bytes(sparse) + bytes(512),
        member(b"d\xff.png", picture(0)),
        member("e.png", b""),
        member("f.png", picture(0)),
        member("g.png", picture(0)),
        member("g.json", b"{"),
        member("h.png", picture(0)),
        member("h.cls", b"\xff"),
        member("i.png", picture(0)),
        member("i.json", b"[" * 100_000),
        member("j.png", picture(0)),
        member("j.json", b"[1]"),
        member("k.png", picture(0)),
        member("k.txt", b" " * ((1 << 20) + 1)),
        member("l.png", picture(0)),
        member("l.json", b'{"identity": ' + b"1" * 5000 + b"}"),
        member("m.png", picture(0)),
        member("m.cls", b"a\0b"),
    )
    manifest = read_webdataset(file)
    assert identities(manifest) == [("a.png", "1")]
    check_images(manifest, {"a.png": picture(1)})
    assert manifest.left_out == {
        "member of a name that its shard has before": 1,
        "member that is a link, sparse or no file": 4,
        "member whose name is not UTF-8 or holds a NUL byte": 1,
        "image without bytes": 1,
        "image without an identity": 2,
        "image whose .cls, .json or .txt is damaged or too large": 6,
    }


SAMPLES = [part for n in range(3) for part in (member(f"{n}.cls", b"%d" % n), member(f"{n}.png", picture(n)))]
IMAGES = {f"{number}.png": picture(number) for number in range(3)}


def test_cut_off_anywhere(tmp_path: Path) -> None:
    data = b"".join(SAMPLES) + bytes(1024)
    file = tmp_path / "x.tar"
    file.write_bytes(data)
    ends = [entry.spans[0][0] + entry.spans[0][1] for entry in read_webdataset(file).entries]
    for size in range(0, len(data) - 1024, 64):
        file.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        if not whole:
            with pytest.raises(RequestError, match="no tar archive|must hold images"):
                read_webdataset(file)
            continue
        manifest = read_webdataset(file)
        assert len(manifest.entries) == whole
        assert manifest.left_out.pop("rest of a shard that is cut off or damaged") == 1
        assert set(manifest.left_out) <= {"member that reaches beyond the end of its shard"}
        check_images(manifest, IMAGES)


def test_a_shard_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    broken = b"\0" * 5 + b"broken".ljust(507, b"x")
    write(tmp_path / "a.tar", *SAMPLES[:2], broken, *SAMPLES[2:4])
    write(tmp_path / "b.tar", *SAMPLES[4:])
    manifest = read_webdataset(tmp_path)
    assert [entry.name for entry in manifest.entries] == ["a.tar#0.png", "b.tar#2.png"]
    assert manifest.left_out == {"rest of a shard that is cut off or damaged": 1}


def chain(record: bytes, times: int) -> bytes:
    return (header(b"p", len(record), b"x") + record.ljust(512, b"\0")) * times


HOSTILE: dict[str, Callable[[], bytes]] = {
    "pax headers without end": lambda: chain(b"11 path=a.b\n", 3000),
    "pax size below zero": lambda: chain(b"14 size=-5120\n", 1) + member("z.png", b"x"),
    "pax size that is huge": lambda: chain(b"27 size=9999999999999999999\n", 1) + member("z.png", b"x"),
    "pax size that is no number": lambda: chain(b"10 size=x\n", 1) + member("z.png", b"x"),
    "pax record of length 0": lambda: chain(b"0 path=a\n", 1) + member("z.png", b"x"),
    "pax path with a NUL byte": lambda: chain(b"13 path=a\0.png\n", 1) + member("z.png", b"x"),
    "GNU sparse map of junk": lambda: chain(b"23 GNU.sparse.map=a,b,c\n", 1) + member("z.png", b"x"),
    "long name of all the rest": lambda: header(b"l", 0o77777777777, b"L") + b"x" * 512,
    "size below zero": lambda: negative_size(),
}


def negative_size() -> bytes:
    block = bytearray(header(b"z.png", 0))
    block[124:136] = b"\xff" * 10 + b"\xf0\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_end(name: str, tmp_path: Path) -> None:
    hostile = HOSTILE[name]()
    manifest = read_webdataset(write(tmp_path / "x.tar", *SAMPLES[:2], hostile, *SAMPLES[2:4]))
    assert manifest.entries[0].inside == "0.png"
    for entry in manifest.entries:
        assert all(offset >= 0 and length > 0 for offset, length in entry.spans)
    with suppress(RequestError):
        read_webdataset(write(tmp_path / "y.tar", hostile, *SAMPLES[2:4]))


def test_damage_gives_a_sentence_or_images(tmp_path: Path) -> None:
    data = b"".join(SAMPLES) + bytes(1024)
    rng = random.Random(7)
    sentences: set[str] = set()
    outcomes = set()
    for _ in range(800):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "x.tar").write_bytes(damaged)
        try:
            manifest = read_webdataset(tmp_path / "x.tar")
        except RequestError as exc:
            sentences.add(str(exc))
            continue
        for entry in manifest.entries:
            try:
                read_image(manifest.resolve(entry), entry.spans)
                outcomes.add("read")
            except DecodeError:
                outcomes.add("left to the decoder")
    assert outcomes == {"read", "left to the decoder"}
    assert sentences
    assert not any("\n" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is no tar archive"),
        (b"<html>404 Not Found</html>", "it is no tar archive"),
        (b"<html>404 Not Found</html>" * 99, "it is no tar archive"),
        (gzip.compress(b"".join(SAMPLES)), r"it is compressed \(gzip\): unpack it to a plain \.tar"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), r"it is compressed \(zstd\)"),
        (bytes(10240), r"with none \(no image\)"),
        (member("a.txt", b"x") + bytes(1024), r"with none \(no image\)"),
        (member("a.png", b"x") + bytes(1024), r"with none \(1 x image without an identity\)"),
    ],
)
def test_files_that_are_no_shards(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    for path in (tmp_path / "x.tar", tmp_path):
        with pytest.raises(RequestError, match=re.escape(f"got {tmp_path}") + ".*" + message):
            read_webdataset(path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"must be a \.tar file or a folder of them, got .*there is no \.tar"
    ):
        read_webdataset(tmp_path)
    with pytest.raises(RequestError, match="there is no such file or folder"):
        read_webdataset(tmp_path / "x.tar")
    write(tmp_path / "a.tar", *SAMPLES)
    for name in ("b.tar.gz", "b.TGZ"):
        (tmp_path / name).touch()
        with pytest.raises(RequestError, match=f"{re.escape(name)} is compressed: unpack it"):
            read_webdataset(tmp_path)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "c.tar")
    with pytest.raises(RequestError, match=r"c\.tar is no regular file"):
        read_webdataset(tmp_path)
    (tmp_path / "c.tar").unlink()
    write(tmp_path / "d\udcff.tar", *SAMPLES)
    for path in (tmp_path, tmp_path / "d\udcff.tar"):
        with pytest.raises(RequestError, match="must have names in UTF-8"):
            read_manifest(path, "webdataset")
