"""Check that the files on disk are exactly those that the records list."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np

from hico_core.base.addresses import Location, is_local, path_of
from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError
from hico_core.corpus.sources.frame_folders import files_at
from hico_core.corpus.sources.ids import parse_clip_name
from hico_core.corpus.workspace.records import ClipRecord, VideoRecord, names_in, read_records, sha256_of


class FileDifference(NamedTuple):
    """A file that does not match the records."""

    kind: Literal["missing", "extra", "changed"]
    path: str
    detail: str = ""


def check_files(root: Location) -> Iterator[FileDifference]:
    """Compare all recorded files with their records: existence, size and checksum; report unrecorded files as well.

    Raises:
        HicoError: there are no records.

    """
    known = {name: set[int]() for name in get_args(Subset)}
    num_records = 0
    for record in read_records(root):
        num_records += 1
        for clip in record.clips:
            if record.options.kind != "untrimmed":
                # A hash instead of the name: the names of 1.5 million clips would fill the memory.
                known[record.options.subset].add(hash(clip.path.rsplit("/", 1)[-1]))
        yield from _check_record(root, record)
    if not num_records:
        raise HicoError(f"{root}: nothing has been split here yet")
    for subset, hashes in known.items():
        folder = root / subset
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            if hash(path.name) not in hashes:
                named = "not in any record" if parse_clip_name(path.name) else "not named like a clip"
                yield FileDifference("extra", str(path), named)


def clips_there(root: Location) -> Callable[[VideoRecord], list[ClipRecord]]:
    """A function that gives the clips of a record whose files exist.

    Each folder of clips is listed once, which takes 8 bytes per clip. Other files are looked up one by one, except in
    buckets, where they are assumed to exist.
    """

    @cache
    def listed(subset: Subset) -> np.ndarray:
        return np.sort(_hashes(names_in(root / subset)))

    def there(record: VideoRecord) -> list[ClipRecord]:
        if record.options.kind == "split":
            names = [clip.path.rsplit("/", 1)[-1] for clip in record.clips]
            is_there = _are_among(_hashes(names), listed(record.options.subset))
        else:
            looked_for = {
                path: not is_local(file := path_of(root, path)) or file.exists()
                for path in {clip.path for clip in record.clips}
            }
            is_there = [looked_for[clip.path] for clip in record.clips]
        return [clip for clip, found in zip(record.clips, is_there, strict=True) if found]

    return there


def _hashes(names: Sequence[str]) -> np.ndarray:
    """A hash of each name, valid in this process only: those of 1.5 million clips take 12 MB."""
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def _are_among(sought: np.ndarray, hashes: np.ndarray) -> list[bool]:
    """Whether each sought value is among the hashes, which are sorted."""
    places = np.searchsorted(hashes, sought)
    return [place < len(hashes) and hashes[place] == one for place, one in zip(places, sought, strict=True)]


def _check_record(root: Location, record: VideoRecord) -> Iterator[FileDifference]:
    """The differences in the files of one video; an untrimmed video has only one file."""
    seen = set[str]()
    for clip in record.clips:
        if clip.path not in seen:
            seen.add(clip.path)
            difference = _check_clip(path_of(root, clip.path), clip)
            if difference:
                yield difference


def _check_clip(path: Location, clip: ClipRecord) -> FileDifference | None:
    try:
        size = sum(file.stat().st_size for file in files_at(path))
    except FileNotFoundError:
        return FileDifference("missing", str(path))
    if size != clip.size_bytes:
        return FileDifference("changed", str(path), f"{size} bytes instead of {clip.size_bytes}")
    if clip.sha256 is not None and sha256_of(path) != clip.sha256:
        return FileDifference("changed", str(path), "other content of the same size")
    return None
