"""Archives that would run code when they are unpickled: nothing of them runs."""

import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from leamfast import RequestError, load_model

GIVEN = dict(size=16, channels="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.fc = nn.Linear(4 * 64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "good.pt2"
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    images = torch.zeros(2, 3, 16, 16)
    torch.export.save(torch.export.export(Small().eval(), (images,), dynamic_shapes=(batch,)), path)
    return path


def saved(payload: object) -> bytes:
    content = io.BytesIO()
    torch.save(payload, content)
    return content.getvalue()


def hostile_member(name: str) -> bool:
    return "sample_inputs" in name


def poisoned(good: Path, to: Path, witness: Path, content) -> Path:
    """The archive with its sample inputs replaced."""
    replaced = 0
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(to, "w") as copy:
        for item in archive.infolist():
            bad = hostile_member(item.filename)
            copy.writestr(item, content(Payload(witness)) if bad else archive.read(item))
            replaced += bad
    assert replaced == 1
    return to


def test_the_archive_as_it_was_is_loaded(exported):
    model = load_model(str(exported), preprocessing=GIVEN)
    assert model.embed(torch.zeros(3, 3, 16, 16)).shape == (3, 6)
    assert [tap.name for tap in model.taps()] == ["conv"]


@pytest.mark.parametrize("content", [saved, pickle.dumps], ids=["torch.save", "pickle"])
def test_a_hostile_archive_does_not_execute(exported, tmp_path, content):
    witness = tmp_path / "executed"
    path = poisoned(exported, tmp_path / "hostile.pt2", witness, content)
    with pytest.raises(RequestError, match=r"^[^\n]*hostile\.pt2[^\n]*$"):
        load_model(str(path), preprocessing=GIVEN)
    assert not witness.exists()


def test_torch_itself_would_have_executed_it(exported, tmp_path):
    """The control: without this the test above would show nothing."""
    witness = tmp_path / "executed"
    path = poisoned(exported, tmp_path / "hostile.pt2", witness, saved)
    with suppress(Exception):  # what comes of it plays no part
        torch.export.load(path)
    assert witness.exists()


def test_an_archive_with_two_lists_of_members_is_refused(exported, tmp_path):
    """Python reads the zip64 end before its locator, other readers the one that the locator points to."""
    path, whole = tmp_path / "two.pt2", exported.read_bytes()
    end = whole.rindex(b"PK\5\6")
    assert whole[end - 20 :].startswith(b"PK\6\7")  # torch writes zip64 ends
    elsewhere = (end - 20 - 56 - 1).to_bytes(8, "little")
    path.write_bytes(whole[: end - 12] + elsewhere + whole[end - 4 :])
    zipfile.ZipFile(path).close()  # Python does not notice
    with pytest.raises(RequestError, match="only a part of one"):
        load_model(str(path), preprocessing=GIVEN)


def test_a_checkpoint_and_other_files_are_named_for_what_they_are(tmp_path):
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt2").write_text("not a zip")
    for name, says in {
        "weights.pt": "checkpoint",
        "text.pt2": "cannot be read|not",
        "absent.pt": "exist",
    }.items():
        with pytest.raises(RequestError, match=rf"^[^\n]*{name}[^\n]*({says})[^\n]*$"):
            load_model(str(tmp_path / name), preprocessing=GIVEN)
