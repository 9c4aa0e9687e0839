"""Files that a download left behind instead of what was asked for."""

from pathlib import Path

__all__ = ["WEB_PAGE", "is_web_page"]

WEB_PAGE = "it is a web page, as a download gives that failed: download it again"
STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")


def is_web_page(path: Path) -> bool:
    """Whether a file begins as a page of HTML does."""
    with path.open("rb") as file:
        start = file.read(1024)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(STARTS)
