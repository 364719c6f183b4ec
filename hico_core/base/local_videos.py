"""A video as a local file, wherever it lies. What prevents that is the video's fault, except a full disk.

If its bucket cannot be reached, the stage of the error is "fetch": other videos are likely to have the same fault.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from hico_core.base.addresses import Location
from hico_core.base.errors import BadVideo, HicoError, NoRoom, short_reason
from hico_core.base.files import NO_ROOM
from hico_core.base.storage import fetched, local_copy


def local_video(place: Location, *, size_bytes: int | None = None) -> AbstractContextManager[Path]:
    """A video as a local file; the copy of an object is kept for other readers.

    Raises:
        BadVideo: it cannot be fetched, or its size is not `size_bytes`.
        NoRoom: the disk is full.

    """
    return _opened(place, local_copy(place, size_bytes=size_bytes))


def fetched_video(place: Location, folder: Path) -> AbstractContextManager[Path]:
    """A video as a local file that is read only once; the copy of an object lies in a folder and is deleted afterwards.

    Raises:
        BadVideo: it cannot be fetched.
        OSError: the disk is full.

    """
    return _opened(place, fetched(place, folder))


@contextmanager
def _opened(place: Location, copy: AbstractContextManager[Path]) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            path = stack.enter_context(copy)
        except FileNotFoundError:
            raise BadVideo(str(place), "no such file") from None
        except (BadVideo, NoRoom):
            raise
        except HicoError as error:
            raise BadVideo(str(place), str(error).removeprefix(f"{place}: "), stage="fetch") from error
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise BadVideo(str(place), f"cannot be fetched ({short_reason(error)})") from error
        yield path
