"""Users' text files (lists, tables, annotations, configurations), as editors and spreadsheets save them."""

import codecs
from typing import Protocol

from hico_core.base.errors import UsageError

_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Readable(Protocol):
    def read_bytes(self) -> bytes: ...


def read_text(path: _Readable, *, keep_odd_bytes: bool = False) -> str:
    r"""The text of a file in UTF-8, or in UTF-16 if it begins with a byte-order mark; its lines end with `\n`.

    Args:
        path: local, or in a bucket.
        keep_odd_bytes: keep bytes that are not UTF-8 as surrogate escapes, as in file names.

    Raises:
        UsageError: it cannot be read, or is in another encoding; the message names the line.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or 'no such file'})") from error
    encoding = "utf-16" if content.startswith(_UTF_16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding, "surrogateescape" if keep_odd_bytes and encoding != "utf-16" else "strict")
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        line = _line_of(content.decode("latin-1"), error.start)
        raise UsageError(
            f"{path}, line {line}: is not {name} text (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = _line_of(text, text.index("\0"))
        raise UsageError(f"{path}, line {line}: contains a NUL byte; save the file as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line_of(text: str, place: int) -> int:
    r"""The number of a line from 1, whether lines end with `\n`, `\r\n` or `\r`."""
    before = text[:place]
    return 1 + before.count("\n") + before.count("\r") - before.count("\r\n")
