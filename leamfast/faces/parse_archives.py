"""Parsers in TorchScript archives: what is checked before any of it runs."""

import zipfile
from pathlib import Path

from leamfast.errors import RequestError, first_line
from leamfast.models.downloads import WEB_PAGE, is_web_page
from leamfast.models.torchscript import read_script
from leamfast.models.zips import check_end, check_members

__all__ = ["check_script"]


def check_script(path: Path) -> None:
    """Refuse a file that is no TorchScript archive, or one that would do more than compute.

    The rules are those for archives of models (`leamfast.models.archives`), with one difference: a parser is
    run whole by TorchScript, so that nothing is asked of the names of its modules.

    Raises:
        RequestError: see above, in one sentence.
    """
    must = f"parser must have a TorchScript archive, got {path}"
    if not path.is_file():
        raise RequestError(f"{must}: there is no such file")
    try:
        _check_zip(path)
        read_script(path)
    except zipfile.BadZipFile as exc:
        raise RequestError(f"{must}: {_what_else(path)}") from exc
    except OSError as exc:
        raise RequestError(f"{must}: {(exc.strerror or 'it cannot be read').lower()}") from exc
    except RequestError as exc:
        raise RequestError(f"{must}: {exc}") from exc
    except Exception as exc:  # a file that is damaged, or made to do harm, can say anything
        raise RequestError(f"{must}: it is damaged or of a kind not known here: {first_line(exc)}") from exc


def _check_zip(path: Path) -> None:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        check_end(file)
        if min((member.header_offset for member in archive.infolist()), default=1) > 0:
            raise zipfile.BadZipFile("the end of a larger file")
        check_members(archive, path.stat().st_size, "it")
        damaged = archive.testzip()
        inside = {name.partition("/")[2] for name in archive.namelist()}
    if damaged is not None:
        raise RequestError(f"it is damaged in {damaged}: copy it again")
    if "constants.pkl" not in inside or not any(name.startswith("code/") for name in inside):
        kind = "a checkpoint of weights without the network" if "data.pkl" in inside else "another zip file"
        raise RequestError(f"it is {kind}")


def _what_else(path: Path) -> str:
    """What a file that is no zip file seems to be."""
    if is_web_page(path):
        return WEB_PAGE
    if not path.stat().st_size:
        return "it is empty"
    return "it is no zip file, or only a part of one"
