"""Removes videos from a workspace: their features, rows of the index, clips and records.

    announce   the videos to remove, so that the same command continues after a kill
    features   the files, then the lines of the manifests
    index      the lists, then the table; afterwards nothing refers to what is removed next
    clips      those that were cut here, then the record, which lists what to remove

What hico did not make stays: the source videos, and clips that another tool cut.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from hico_core.base.addresses import DEFAULT_ROOT, Location, is_local, locate
from hico_core.base.errors import UsageError
from hico_core.base.failures import forget_failures
from hico_core.base.files import pass_point, remove_abandoned
from hico_core.base.storage import write_text
from hico_core.corpus.index import drop_videos, rows_of_videos
from hico_core.corpus.workspace.access import opened_workspace
from hico_core.corpus.workspace.records import VideoRecord, read_record, record_ids, record_path
from hico_core.transfer.extraction.extract import opened_folder
from hico_core.transfer.extraction.manifest import (
    HDF5,
    MANIFESTS,
    ManifestRow,
    drop_lines,
    pack_into_hdf5,
    read_manifest,
    require_hdf5,
)

# Lists the videos whose removal is in progress.
_ANNOUNCED = ".removal.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What is removed from a workspace together with some videos."""

    video_ids: list[str]
    clips: list[str]  # clips cut here, relative to the root
    features: list[str]  # files, relative to the root
    num_rows: int  # of the index
    size_bytes: int  # of clips and features
    staying: list[str]  # sources that were read in place; they are not hico's


class _Found(NamedTuple):
    """What exists of the videos to remove."""

    records: list[VideoRecord]
    features: dict[Location, list[ManifestRow]]  # folder -> rows
    num_rows: int


def remove_videos(video_ids: Sequence[str], *, root: "Location | str" = DEFAULT_ROOT, dry_run: bool = False) -> Removal:
    """Remove videos from a workspace, with everything that was made from them there.

    Args:
        video_ids: of videos with a record, rows of the index or features.
        root: the workspace.
        dry_run: only report what would be removed.

    Raises:
        UsageError: an id is unknown; names the most similar one.
        HicoError: another command is writing here, or a file that lists what exists cannot be read.

    """
    root = locate(root)
    wanted = list(dict.fromkeys(video_ids))
    if not (root / "records").is_dir() and not (root / "index.parquet").exists():
        raise UsageError(f"{root}: not a workspace; name one with --root")
    folders = sorted({path.parent for path in (root / "features").glob(f"*/{MANIFESTS}")}, key=str)
    if dry_run:
        return _removal(wanted, _find(root, wanted, folders), root)
    with ExitStack() as stack:
        stack.enter_context(opened_workspace(root))
        if is_local(root):
            remove_abandoned(root)
        for folder in folders:
            stack.enter_context(opened_folder(folder, None))
        found = _find(root, wanted, folders)
        removal = _removal(wanted, found, root)
        before = _announced(root)
        write_text(root / _ANNOUNCED, json.dumps(sorted({*before, *wanted})))
        for folder, rows in found.features.items():
            _remove_features(folder, rows)
        pass_point("remove.features")
        forget_failures(root, _sources(found))
        drop_videos(root, wanted)
        for record in found.records:
            _remove_clips(root, record)
        pass_point("remove.announced")
        left = sorted(set(before) - set(wanted))
        if left:
            write_text(root / _ANNOUNCED, json.dumps(left))
        else:
            (root / _ANNOUNCED).unlink()
    return removal


def _announced(root: Location) -> list[str]:
    """The videos whose removal was begun but not finished."""
    try:
        names: list[str] = json.loads((root / _ANNOUNCED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return names


def _find(root: Location, wanted: Sequence[str], folders: Sequence[Location]) -> _Found:
    """Find everything that exists of the given videos.

    Raises:
        UsageError: nothing exists of one of them.

    """
    rows_of = rows_of_videos(root)
    manifests = {folder: list(read_manifest(folder).values()) for folder in folders}
    known = {*record_ids(root), *rows_of, *_announced(root)}
    known |= {row.video_id for rows in manifests.values() for row in rows}
    _require_known(wanted, known, root)
    records = [record for name in wanted if (record := read_record(root, name)) is not None]
    gone = set(wanted)
    features = {folder: [row for row in rows if row.video_id in gone] for folder, rows in manifests.items()}
    return _Found(
        records,
        {folder: rows for folder, rows in features.items() if rows},
        sum(rows_of.get(name, 0) for name in wanted),
    )


def _require_known(wanted: Sequence[str], known: Collection[str], root: Location) -> None:
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; the nearest id is {near[0]!r}" if near else ""
            raise UsageError(f"{root}: has no video {name!r}{hint}")


def _removal(wanted: list[str], found: _Found, root: Location) -> Removal:
    clips = [clip for record in found.records if record.options.kind == "split" for clip in record.clips]
    features = [(folder, row) for folder, rows in found.features.items() for row in rows]
    return Removal(
        video_ids=wanted,
        clips=[clip.path for clip in clips],
        features=[f"features/{folder.name}/{row.file}" for folder, row in features],
        num_rows=found.num_rows,
        size_bytes=sum(clip.size_bytes for clip in clips) + sum(row.size_bytes for _, row in features),
        staying=[record.source.path for record in found.records if record.options.kind != "split"],
    )


def _sources(found: _Found) -> Iterator[str]:
    """The names under which failures of these videos are listed."""
    yield from (record.source.path for record in found.records)
    yield from (row.source for rows in found.features.values() for row in rows)


def _remove_features(folder: Location, rows: Sequence[ManifestRow]) -> None:
    """Files first: the next call still finds a line without its file, but not a file without its line."""
    gone = {row.file for row in rows}
    for name in sorted(gone):
        pass_point("remove.feature")
        (folder / name).unlink(missing_ok=True)
    if (folder / HDF5).exists():
        left = {name: row for name, row in read_manifest(folder).items() if name not in gone}
        if left:
            require_hdf5()
            pack_into_hdf5(folder, left)
        else:
            (folder / HDF5).unlink()
    pass_point("remove.manifest")
    drop_lines(folder, {row.video_id for row in rows})


def _remove_clips(root: Location, record: VideoRecord) -> None:
    """Remove the clips that were cut here, then the record: without it, remaining clips could not be found."""
    for clip in record.clips if record.options.kind == "split" else []:
        pass_point("remove.clip")
        (root / clip.path).unlink(missing_ok=True)
    pass_point("remove.record")
    record_path(root, record.video_id).unlink(missing_ok=True)
