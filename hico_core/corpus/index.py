"""Records -> <root>/index.parquet, one row per clip, and the authors' list files beside it.

The index holds the records of all clips that exist and opens no clip, so it is built in one pass over the records in
bounded memory. `check_files` in check.py compares all files on disk with the records.
"""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hico_core.base.addresses import DEFAULT_ROOT, Location, is_local, locate, name_from, quoted
from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError, counted, short_reason
from hico_core.base.files import pass_point
from hico_core.base.storage import publish, storage_of, write_text, written_beside
from hico_core.base.version import __version__
from hico_core.config import DataConfig
from hico_core.corpus.index_check import fault_in
from hico_core.corpus.workspace.access import opened_workspace
from hico_core.corpus.workspace.check import clips_there
from hico_core.corpus.workspace.records import ClipRecord, VideoRecord, fault_in_record, read_records

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SCHEMA_VERSION = "2"

# Rows are written in groups, so memory does not grow with the number of clips.
_ROWS_PER_GROUP = 65_536

_TABLE = "index.parquet"

# A column added later: an index without it is read as if all its values were null.
_ADDED = "cuts"
_LIST_FILES = {"train": "training.txt", "val": "validation.txt", "test": "testing.txt"}

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("clip_index", pa.int32()),  # from 0, in time order
        ("num_clips", pa.int32()),  # of its video
        ("subset", pa.string()),  # train, val or test
        ("path", pa.string()),  # relative to the root, /-separated; absolute if it lies elsewhere
        ("start_ms", pa.int64()),  # as planned; part of the file's name
        ("end_ms", pa.int64()),
        ("start_seconds", pa.float64()),  # of its first frame, from the source's first frame
        ("end_seconds", pa.float64()),  # end of its last frame
        ("num_frames", pa.int32()),  # frames that decode
        ("fps", pa.float64()),  # average of the video
        ("variable_fps", pa.bool_()),
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("keyframe_interval", pa.int32()),  # largest, in frames
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("source", pa.string()),  # the untrimmed video, named in the same way
        ("label", pa.int32()),  # class of the video; null if it has none
        ("first_frame", pa.int32()),  # number of the row's first frame in its file; can exceed 0 in untrimmed videos
        ("class_name", pa.string()),  # name of the label, if a list gave one
        ("cuts", pa.list_(pa.float64())),  # starts of new shots in it, in seconds like start_seconds; null: not known
    ],
    metadata={"hico_schema_version": SCHEMA_VERSION, "hico_version": __version__},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSummary:
    """The contents of an index, in numbers."""

    num_videos: int
    num_clips: int
    num_failed: int  # videos whose record is a failure; they are left out
    num_missing: int  # clips whose files are missing; they are left out
    clips_of: dict[str, int]  # subset -> clips
    videos_of: dict[str, int]  # subset -> videos
    num_short: int  # training videos that are shorter than one clip of the recipes

    @property
    def left_out(self) -> str:
        """A sentence about the videos that pretraining will leave out; empty if there are none."""
        return left_out_of_pretraining(self.num_short, clip_seconds=DataConfig().span_seconds)


def left_out_of_pretraining(num_short: int, *, clip_seconds: float) -> str:
    """A sentence about the number of videos that are shorter than one clip; empty if there are none."""
    videos = f"{counted(num_short, 'video')} shorter than one clip ({clip_seconds:.2f} s)"
    return f"pretraining leaves out {videos}" if num_short else ""


def subset_of(record: VideoRecord, *, val_fraction: float) -> Subset:
    """The subset of a video: its own, or val for a fraction of the training videos.

    A video's ID decides whether it is among them, so it keeps its subset when other videos are added or removed.
    """
    digest = hashlib.sha256(record.video_id.encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    return "val" if record.options.subset == "train" and drawn < val_fraction else record.options.subset


def _columns_of(record: VideoRecord, subset: Subset, root: Location) -> dict[str, list[Any]]:
    """The rows of one video, as columns."""
    clips = record.clips
    count = len(clips)
    names = {path: name_from(root, path) for path in {record.source.path, *(clip.path for clip in clips)}}
    return {
        "video_id": [record.video_id] * count,
        "clip_index": list(range(count)),
        "num_clips": [count] * count,
        "subset": [subset] * count,
        "fps": [record.fps] * count,
        "variable_fps": [record.variable_fps] * count,
        "source": [names[record.source.path]] * count,
        "label": [record.options.label if record.options.kind == "untrimmed" else None] * count,
        "class_name": [record.options.class_name if record.options.kind == "untrimmed" else None] * count,
        **{name: [getattr(clip, name) for clip in clips] for name in ClipRecord.model_fields},
        "path": [names[clip.path] for clip in clips],
    }


def _with_clips(record: VideoRecord, clips: list[ClipRecord]) -> VideoRecord:
    """A record with only some of its clips; a gap between them makes the frame rate variable, as frame counts fail."""
    has_hole = clips != record.clips[: len(clips)]
    return record.model_copy(update={"clips": clips, "variable_fps": record.variable_fps or has_hole})


def _missing_in(record: VideoRecord, found: VideoRecord) -> str:
    """A message that names the missing clips of a record and the remedy."""
    kept = {clip.path for clip in found.clips}
    missing = [clip.path for clip in record.clips if clip.path not in kept]
    name = record.video_id
    if record.options.kind == "untrimmed":
        return f"{missing[0]}: no such file; {name!r} is left out (index it at its new location, or `hico remove` it)"
    count = f"{len(missing)} of {counted(len(record.clips), 'clip')} of {name!r} {'is' if len(missing) == 1 else 'are'}"
    again = "split it again with `hico split --force`, or " if record.options.kind == "split" else ""
    return f"{missing[0]}: {count} missing and left out ({again}`hico remove` it)"


def list_line(video_id: str, start_ms: int, end_ms: int) -> str:
    """A line of training.txt in the authors' format."""
    return f"{video_id},{start_ms:07d},{end_ms:07d}\n"


def _batches(records: Iterable[tuple[VideoRecord, Subset]], root: Location) -> Iterator[pa.RecordBatch]:
    """The rows of many videos, in batches."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record, subset in records:
        for name, values in _columns_of(record, subset, root).items():
            columns[name] += values
        if len(columns["path"]) >= _ROWS_PER_GROUP:
            yield pa.RecordBatch.from_pydict(columns, schema=SCHEMA)
            columns = {name: [] for name in SCHEMA.names}
    if columns["path"]:
        yield pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


class _Selection:
    """The videos of a workspace that go into its index, counted while they are read."""

    def __init__(self, root: Location, *, val_fraction: float) -> None:
        self.clips_of: Counter[str] = Counter()
        self.videos_of: Counter[str] = Counter()
        self.num_failed = self.num_missing = self.num_short = 0
        self._root = root
        self._val_fraction = val_fraction

    def indexed(self) -> Iterator[tuple[VideoRecord, Subset]]:
        """Each video that has clips on disk, with those clips and its subset; the log names missing clips."""
        there = clips_there(self._root)
        for recorded in read_records(self._root):
            if _is_failure(recorded):
                self.num_failed += 1
                continue
            record = _with_clips(recorded, there(recorded))
            if len(record.clips) < len(recorded.clips):
                self.num_missing += len(recorded.clips) - len(record.clips)
                logger.warning("%s", _missing_in(recorded, record))
            if record.clips:
                subset = subset_of(record, val_fraction=self._val_fraction)
                self._count(record, subset)
                yield record, subset

    def _count(self, record: VideoRecord, subset: Subset) -> None:
        self.videos_of[subset] += 1
        self.clips_of[subset] += len(record.clips)
        self.num_short += subset == "train" and record.clips[-1].end_seconds < DataConfig().span_seconds

    def require_some(self) -> None:
        """Check that there is anything to index.

        Raises:
            HicoError: all videos failed, or their files are gone.

        """
        if self.videos_of:
            return
        if self.num_missing:
            raise HicoError(
                f"{self._root}: no clip of its records exists; split the videos again with `hico split --force`"
            )
        raise HicoError(f"{self._root}: all videos failed; see {self._root / 'failures.jsonl'}")

    def summary(self) -> IndexSummary:
        """The counts so far."""
        return IndexSummary(
            num_videos=self.videos_of.total(),
            num_clips=self.clips_of.total(),
            num_failed=self.num_failed,
            num_missing=self.num_missing,
            clips_of=dict(self.clips_of),
            videos_of=dict(self.videos_of),
            num_short=self.num_short,
        )


def _is_failure(record: VideoRecord) -> bool:
    if record.failure:
        return True
    fault = fault_in_record(record)  # earlier versions wrote records without this check
    if fault:
        logger.warning("%s: %s; left out until it is split or indexed again", record.source.path, fault)
    return bool(fault)


def build_index(root: "Location | str" = DEFAULT_ROOT, *, val_fraction: float = 0.0) -> IndexSummary:
    """Write index.parquet and the list files from the records under `root`; each is complete or absent.

    Rows are sorted by video and time. Failed videos and missing clips are left out and counted; the log names missing
    clips.

    Args:
        root: the workspace.
        val_fraction: fraction of the training videos that are assigned to the subset val, chosen by id.

    Raises:
        HicoError: there are no records, or none without failure; or another command is writing here.

    """
    root = locate(root)
    if not (root / "records").is_dir():
        raise HicoError(f"{root}: nothing has been split here yet; run `hico split VIDEOS --root {quoted(root)}` first")
    selection = _Selection(root, val_fraction=val_fraction)
    with opened_workspace(root), _temporary_folder(root) as folder:
        _write_files(selection.indexed(), root, folder)
        selection.require_some()
        # The table comes last, so that whenever it exists, the matching lists exist too.
        for subset, name in _LIST_FILES.items():
            pass_point("index.list")
            if selection.clips_of[subset]:
                publish(folder / name, root / name)
            else:
                (root / name).unlink(missing_ok=True)
        pass_point("index.table")
        publish(folder / _TABLE, root / _TABLE)
    return selection.summary()


@contextmanager
def _temporary_folder(root: Location) -> Iterator[Path]:
    """A folder for unfinished files, on the disk of a local workspace, so that publishing them is a rename."""
    inside = root if is_local(root) else None
    if inside is not None:
        for abandoned in inside.glob(".index-*"):  # left by a killed indexer
            shutil.rmtree(abandoned, ignore_errors=True)
    with TemporaryDirectory(prefix=".index-", dir=inside) as folder:
        yield Path(folder)


def _write_files(videos: Iterable[tuple[VideoRecord, Subset]], root: Location, folder: Path) -> None:
    """Write the table and the list of each subset into a folder, in one pass over the videos."""
    with ExitStack() as stack:
        lists = {
            subset: stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for subset, name in _LIST_FILES.items()
        }

        def listed() -> Iterator[tuple[VideoRecord, Subset]]:
            for record, subset in videos:
                lists[subset].writelines(list_line(record.video_id, c.start_ms, c.end_ms) for c in record.clips)
                yield record, subset

        # With checksums, because a flipped bit in a page would otherwise be read as a different value.
        with pq.ParquetWriter(folder / _TABLE, SCHEMA, compression="zstd", write_page_checksum=True) as table:
            for batch in _batches(listed(), root):
                table.write_batch(batch)


def rows_of_videos(root: Location) -> dict[str, int]:
    """Number of rows of each video in the index; empty if there is no index.

    Raises:
        HicoError: the index is of another schema, or is damaged.

    """
    if not (root / _TABLE).exists():
        return {}
    counts = pc.value_counts(_read(root, ["video_id"])["video_id"])
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


def drop_videos(root: Location, video_ids: Collection[str]) -> None:
    """Rewrite the lists, then the index, without some videos; files that would be empty are removed."""
    for name in _LIST_FILES.values():
        if (root / name).exists():
            lines = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.rsplit(",", 2)[0] not in video_ids]
            pass_point("index.list")
            if not kept:
                (root / name).unlink()
            elif len(kept) < len(lines):
                write_text(root / name, "".join(kept))
    pass_point("index.table")
    rows_of = rows_of_videos(root)
    if rows_of and rows_of.keys() <= set(video_ids):
        (root / _TABLE).unlink()
    elif not rows_of.keys().isdisjoint(video_ids):
        _write_index_without(root, video_ids)


def _write_index_without(root: Location, video_ids: Collection[str]) -> None:
    path, gone = root / _TABLE, pa.array(video_ids, pa.string())
    with (
        pq.ParquetFile(storage_of(path).for_arrow(path)) as old,
        written_beside(path) as beside,
        pq.ParquetWriter(beside, old.schema_arrow, compression="zstd", write_page_checksum=True) as writer,
    ):
        for batch in old.iter_batches(_ROWS_PER_GROUP):
            kept = batch.filter(pc.invert(pc.is_in(batch["video_id"], gone)))
            if len(kept):
                writer.write_batch(kept)


def read_index_table(root: "Location | str", *, columns: list[str] | None = None) -> pa.Table:
    """The index under `root` as Arrow columns, sorted by video and time: fast to open, and small.

    Columns whose values repeat from row to row are dictionaries.

    Args:
        root: the workspace.
        columns: only these.

    Raises:
        HicoError: there is no index, it is of another schema, or it is damaged.

    """
    return _read(root, columns, read_dictionary=["video_id", "subset", "codec", "source"])


def read_class_names(root: "Location | str") -> dict[int, str]:
    """Label -> class name, for the labels of an index that have names; empty if there is no index.

    Raises:
        HicoError: the index is of another schema, or is damaged.

    """
    if not (locate(root) / _TABLE).exists():
        return {}
    table = _read(root, ["label", "class_name"])
    named = table.filter(pc.is_valid(table["class_name"])).group_by(["label", "class_name"]).aggregate([])
    return dict(sorted(zip(named["label"].to_pylist(), named["class_name"].to_pylist(), strict=True)))


def read_index(root: "Location | str", *, columns: list[str] | None = None) -> "pd.DataFrame":
    """The index under `root` as a data frame for interactive use: one row per clip, sorted by video and time.

    Args:
        root: the workspace.
        columns: only these.

    Raises:
        HicoError: there is no index, it is of another schema, or it is damaged.

    """
    frame: pd.DataFrame = _read(root, columns).to_pandas()
    if "label" in frame:
        frame["label"] = frame["label"].astype("Int32")  # keeps nulls, which NumPy's int32 cannot
    return frame


def _read(root: "Location | str", columns: list[str] | None, *, read_dictionary: Sequence[str] = ()) -> pa.Table:
    """Read the index and check that hico can have written it."""
    path = locate(root) / _TABLE
    again = f"run `hico index --root {quoted(root)}` again"
    try:
        with pq.ParquetFile(
            storage_of(path).for_arrow(path),
            read_dictionary=list(read_dictionary),
            page_checksum_verification=True,
        ) as file:
            version = (file.schema_arrow.metadata or {}).get(b"hico_schema_version", b"none").decode(errors="replace")
            if version != SCHEMA_VERSION:
                ours = f"but hico {__version__} uses schema {SCHEMA_VERSION}"
                raise HicoError(f"{path}: has schema {version}, {ours}; {again}")
            for field in SCHEMA if columns is None else [SCHEMA.field(name) for name in columns]:
                found = file.schema_arrow.field(field.name).type if field.name in file.schema_arrow.names else None
                if found is None and field.name == _ADDED:
                    continue
                if found not in (field.type, pa.dictionary(pa.int32(), field.type)):
                    raise HicoError(f"{path}: has no column {field.name} of {field.type}; {again}")
            table = file.read(columns=columns)
    except FileNotFoundError:
        raise HicoError(f"{root}: has no index.parquet; run `hico index --root {quoted(root)}` first") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:  # the last two: damaged names in its schema
        raise HicoError(f"{path}: is damaged, or not a parquet file ({short_reason(error)}); {again}") from error
    if _ADDED not in table.column_names and (columns is None or _ADDED in columns):
        table = table.append_column(SCHEMA.field(_ADDED), pa.nulls(len(table), SCHEMA.field(_ADDED).type))
    fault = fault_in(table)
    if fault:
        raise HicoError(f"{path}: is damaged ({fault}); {again}")
    return table
