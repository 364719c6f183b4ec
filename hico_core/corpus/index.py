"""Records -> <root>/index.parquet, a row per clip, and the authors' list files beside it."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hico_core import __version__
from hico_core.corpus.records import VideoRecord, read_records
from hico_core.errors import HicoError

SCHEMA_VERSION = "1"

# Written a part at a time, so memory does not grow with the number of clips.
_ROWS_PER_GROUP = 65_536

_LIST_FILES = {"train": "training.txt", "val": "validation.txt", "test": "testing.txt"}

_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("clip_index", pa.int32()),  # from 0, in time order
        ("num_clips", pa.int32()),  # of its video
        ("subset", pa.string()),  # train, val or test
        ("path", pa.string()),  # relative to the root, /-separated
        ("start_ms", pa.int64()),  # as planned; what the file is named by
        ("end_ms", pa.int64()),
        ("start_seconds", pa.float64()),  # of its first frame, from the source's first frame
        ("end_seconds", pa.float64()),  # end of its last frame
        ("num_frames", pa.int32()),  # that decode
        ("fps", pa.float64()),  # average of the video
        ("variable_fps", pa.bool_()),
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("keyframe_interval", pa.int32()),  # largest, in frames
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("source", pa.string()),  # the untrimmed video
        ("label", pa.int32()),  # class of the video; null where there is none
    ],
    metadata={"hico_schema_version": SCHEMA_VERSION, "hico_version": __version__},
)


class IndexSummary(NamedTuple):
    """What went into an index."""

    num_videos: int
    num_clips: int
    num_failed: int  # videos whose record is a failure; they are left out
    clips_of: dict[str, int]  # subset -> clips


def _rows(record: VideoRecord) -> Iterator[dict[str, Any]]:
    """The rows of one video."""
    for number, clip in enumerate(record.clips):
        yield {
            "video_id": record.video_id,
            "clip_index": number,
            "num_clips": len(record.clips),
            "subset": record.options.subset,
            "fps": record.fps,
            "variable_fps": record.variable_fps,
            "source": record.source.path,
            "label": None,
            **clip.model_dump(),
        }


def list_line(video_id: str, start_ms: int, end_ms: int) -> str:
    """A line of training.txt in the authors' format."""
    return f"{video_id},{start_ms:07d},{end_ms:07d}\n"


def _check_files(root: Path, record: VideoRecord) -> None:
    """Each clip of a record lies where it was committed, with the size it had.

    Raises:
        HicoError: one does not.

    """
    for clip in record.clips:
        path = root / clip.path
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise HicoError(
                f"{path}: is missing; delete {root / 'records' / record.video_id}.json and run `hico split` again"
            ) from None
        if size != clip.size_bytes:
            raise HicoError(f"{path}: has {size} bytes instead of {clip.size_bytes}; it was changed after the split")


def build_index(root: Path) -> IndexSummary:
    """Write index.parquet and the list files from the records under `root`; each is there whole or not at all.

    Rows are sorted by video and time. Videos that failed are left out and counted.

    Raises:
        HicoError: there are no records, or a clip is not as its record says.

    """
    clips_of: Counter[str] = Counter()
    num_videos = num_failed = 0
    targets = [root / "index.parquet", *(root / name for name in _LIST_FILES.values())]
    beside = {target: target.with_name(f".{target.name}.tmp") for target in targets}
    lists = {subset: beside[root / name] for subset, name in _LIST_FILES.items()}
    if not (root / "records").is_dir():
        raise HicoError(f"{root}: nothing was split here yet; run `hico split VIDEOS --root {root}` first")

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal num_videos, num_failed
        for record in read_records(root):
            if record.failure:
                num_failed += 1
                continue
            num_videos += 1
            _check_files(root, record)
            subset = record.options.subset
            clips_of[subset] += len(record.clips)
            open_lists[subset].writelines(
                list_line(record.video_id, clip.start_ms, clip.end_ms) for clip in record.clips
            )
            yield from _rows(record)

    open_lists = {subset: path.open("w", encoding="utf-8", newline="\n") for subset, path in lists.items()}
    try:
        with pq.ParquetWriter(beside[targets[0]], _SCHEMA, compression="zstd") as writer:
            remaining = rows()
            while part := list(islice(remaining, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(part, schema=_SCHEMA))
        for opened in open_lists.values():
            opened.close()
        if not num_videos:
            raise HicoError(f"{root}: no video was split without failure; see {root / 'failures.jsonl'}")
        for target, path in beside.items():
            path.replace(target)
    finally:
        for opened in open_lists.values():
            opened.close()
        for path in beside.values():
            path.unlink(missing_ok=True)
    for subset, name in _LIST_FILES.items():
        if not clips_of[subset]:
            (root / name).unlink()
    return IndexSummary(num_videos, sum(clips_of.values()), num_failed, dict(clips_of))


def read_index(root: Path | str, *, columns: list[str] | None = None) -> pd.DataFrame:
    """The index under `root`, sorted by video and time.

    Args:
        root: the workspace.
        columns: only these.

    Raises:
        HicoError: there is no index, or one of another schema.

    """
    path = Path(root) / "index.parquet"
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise HicoError(f"{root}: has no index.parquet; run `hico index --root {root}` first") from None
    except pa.ArrowInvalid as error:
        raise HicoError(f"{path}: not a parquet file; run `hico index --root {root}` again") from error
    with file:
        version = (file.schema_arrow.metadata or {}).get(b"hico_schema_version", b"none").decode()
        if version != SCHEMA_VERSION:
            raise HicoError(
                f"{path}: index of schema {version}, this is hico {__version__} with schema {SCHEMA_VERSION}; "
                f"run `hico index --root {root}` again"
            )
        table = file.read(columns=columns)
    frame: pd.DataFrame = table.to_pandas()
    if "label" in frame:
        frame["label"] = frame["label"].astype("Int32")  # keeps nulls, which NumPy's int32 cannot
    return frame
