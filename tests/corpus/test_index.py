"""The index has a row per committed clip, and the lists are the authors'."""

import json
import math
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import hico, hico_process
from goldens import load_json
from hypothesis import given
from hypothesis import strategies as st
from made_videos import numbered_video

from hico_core import __version__
from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError
from hico_core.config import DataConfig, preset, preset_names
from hico_core.corpus.clips.probe import probe
from hico_core.corpus.index import (
    SCHEMA,
    _columns_of,
    build_index,
    drop_videos,
    list_line,
    read_index,
    read_index_table,
    subset_of,
)
from hico_core.corpus.index_check import fault_in
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import (
    ClipRecord,
    SourceFile,
    SplitOptions,
    VideoRecord,
    fault_in_record,
    sha256_of,
)

# What other tools read, and one of ours.
COLUMNS = {
    "video_id": "string",
    "clip_index": "int32",
    "num_clips": "int32",
    "subset": "string",
    "path": "string",
    "start_ms": "int64",
    "end_ms": "int64",
    "start_seconds": "double",
    "end_seconds": "double",
    "num_frames": "int32",
    "fps": "double",
    "variable_fps": "bool",
    "width": "int32",
    "height": "int32",
    "codec": "string",
    "keyframe_interval": "int32",
    "size_bytes": "int64",
    "sha256": "string",
    "source": "string",
    "label": "int32",
    "first_frame": "int32",
    "class_name": "string",
    "cuts": "list<element: double>",
}


@pytest.mark.parametrize("name", preset_names())
def test_a_clip_lasts_as_long_in_all_recipes(name: str) -> None:
    """So that the index can say which videos are shorter than one."""
    assert preset(name).data.span_seconds == DataConfig().span_seconds


def test_list_lines_are_the_authors() -> None:
    for line in load_json("sampling.json")["subclip_files"]["list_file_lines"]:
        video_id, start, end = line.rsplit(",", 2)
        assert list_line(video_id, int(start), int(end)) == line + "\n"


def split_into(root: Path, folder: Path, subset: Subset = "train") -> None:
    split_videos(
        find_sources([str(folder)]),
        root=root,
        options=SplitOptions(short_side=96, preset="ultrafast", subset=subset),
        workers=2,
        on_event=lambda event: None,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    numbered_video(tmp_path / "videos/v_b.mp4", seconds=7, size="200x120")
    numbered_video(tmp_path / "videos/-a, 1_2.mp4", seconds=5, fps="25")
    (tmp_path / "videos/broken.mp4").write_text("no video")
    split_into(tmp_path / "root", tmp_path / "videos")
    return tmp_path / "root"


@pytest.mark.videos
def test_rows_lists_and_metadata(root: Path) -> None:
    summary = build_index(root)
    assert (summary.num_videos, summary.num_clips, summary.num_failed) == (2, 3, 1)
    assert summary.clips_of == {"train": 3}
    assert (root / "training.txt").read_bytes() == (b"-a, 1_2,0000000,0005000\nb,0000000,0005000\nb,0005000,0007000\n")
    assert not (root / "validation.txt").exists()

    schema = pq.read_schema(root / "index.parquet")
    assert {field.name: str(field.type) for field in schema} == COLUMNS
    assert schema.metadata[b"hico_schema_version"] == b"2"
    assert schema.metadata[b"hico_version"] == __version__.encode()
    assert pq.ParquetFile(root / "index.parquet").metadata.row_group(0).column(0).compression == "ZSTD"

    index = read_index(root)
    assert index["video_id"].tolist() == ["-a, 1_2", "b", "b"]
    assert index["clip_index"].tolist() == [0, 0, 1]
    assert index["num_clips"].tolist() == [1, 2, 2]
    assert index["label"].isna().all() and index["class_name"].isna().all()
    for row in index.to_dict("records"):
        clip = root / row["path"]
        assert clip.name == f"v_{row['video_id']}_{row['start_ms']:07d}_{row['end_ms']:07d}.mp4"
        assert (row["size_bytes"], row["sha256"]) == (clip.stat().st_size, sha256_of(clip))
        info = probe(clip)
        assert (row["num_frames"], row["width"], row["height"]) == (len(info.timestamps), info.width, info.height)
        assert row["codec"] == "h264" and not row["variable_fps"]
    assert index["fps"].round(6).tolist() == [25, 30, 30]
    assert index["end_seconds"].tolist() == pytest.approx([5, 5, 7])
    assert index["source"].str.endswith(("-a, 1_2.mp4", "v_b.mp4")).all()


@pytest.mark.videos
def test_columns_and_other_subsets(root: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    numbered_video(tmp_path / "more/c.mp4", seconds=2)
    split_into(root, tmp_path / "more", subset="val")
    build_index(root)
    assert (root / "validation.txt").read_text() == "c,0000000,0002000\n"
    index = read_index(root, columns=["video_id", "subset"])
    assert list(index.columns) == ["video_id", "subset"]
    assert index.set_index("video_id")["subset"].to_dict() == {"-a, 1_2": "train", "b": "train", "c": "val"}


@pytest.mark.videos
def test_the_same_records_give_the_same_bytes(root: Path) -> None:
    build_index(root)
    names = ("index.parquet", "training.txt")
    before = [(root / name).read_bytes() for name in names]
    build_index(root)
    assert [(root / name).read_bytes() for name in names] == before


def test_videos_are_drawn_for_validation_by_their_ids() -> None:
    """The same videos whatever else is there; about as many as asked for; none of the test videos."""
    ids = [f"video {i}" for i in range(2000)]
    drawn = {name for name in ids if subset_of(record_of(name), val_fraction=0.1) == "val"}
    assert 150 < len(drawn) < 250
    assert drawn < {name for name in ids if subset_of(record_of(name), val_fraction=0.2) == "val"}
    assert {subset_of(record_of(name), val_fraction=0) for name in ids} == {"train"}
    assert {subset_of(record_of(name, subset="test"), val_fraction=1) for name in ids} == {"test"}


def record_of(video_id: str, subset: Subset = "train") -> VideoRecord:
    return VideoRecord(
        hico_version="0",
        video_id=video_id,
        source=SourceFile(path="", size_bytes=0, mtime_ns=0),
        options=SplitOptions(subset=subset),
        attempts=1,
    )


@pytest.mark.videos
def test_a_part_of_the_videos_for_validation(root: Path) -> None:
    summary = build_index(root, val_fraction=1.0)
    assert summary.clips_of == {"val": 3}
    assert not (root / "training.txt").exists()
    assert len((root / "validation.txt").read_text().splitlines()) == 3
    index = read_index(root)
    assert set(index["subset"]) == {"val"}
    assert all((root / path).exists() for path in index["path"]), "files stay where they are"


@pytest.mark.videos
def test_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="nothing has been split here yet"):
        build_index(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/x.mp4").write_text("no video")
    split_into(tmp_path, tmp_path / "videos")
    with pytest.raises(HicoError, match="all videos failed"):
        build_index(tmp_path)
    assert not (tmp_path / "index.parquet").exists()


@pytest.mark.videos
def test_records_of_another_version(root: Path) -> None:
    (root / "records/b.json").write_text('{"schema_version": 2}')
    with pytest.raises(
        HicoError, match=r"b\.json: not a record that this version of hico wrote .*; `hico split --force`"
    ):
        build_index(root)


@pytest.mark.videos
def test_reading_what_is_no_index(root: Path) -> None:
    with pytest.raises(HicoError, match="run `hico index"):
        read_index(root)
    (root / "index.parquet").write_text("hello")
    with pytest.raises(HicoError, match="not a parquet file"):
        read_index(root)
    table = pq.read_table(_built(root)).replace_schema_metadata({"hico_schema_version": "0"})
    pq.write_table(table, root / "index.parquet")
    with pytest.raises(HicoError, match="has schema 0"):
        read_index(root)


def _built(root: Path) -> Path:
    build_index(root)
    return root / "index.parquet"


# column -> a value that no index of hico has there
WRONG_VALUES: dict[str, object] = {
    "num_frames": 0,
    "width": -4,
    "first_frame": -1,
    "size_bytes": -1,
    "fps": math.nan,
    "start_seconds": math.inf,
    "end_seconds": -1.0,
    "video_id": None,
    "path": None,
    "clip_index": 7,
}


@pytest.mark.videos
@pytest.mark.parametrize("column", WRONG_VALUES)
def test_an_index_with_a_wrong_value_is_refused(column: str, root: Path, tmp_path: Path) -> None:
    build_index(root)
    table = pq.read_table(root / "index.parquet")
    values = table[column].to_pylist()
    values[1] = WRONG_VALUES[column]
    place = table.column_names.index(column)
    changed = table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    pq.write_table(changed, tmp_path / "index.parquet")
    with pytest.raises(HicoError, match=r"index\.parquet: is damaged .*; run `hico index"):
        read_index_table(tmp_path)


@pytest.mark.videos
def test_of_an_index_before_there_were_cuts_they_are_not_known(root: Path) -> None:
    build_index(root)
    assert read_index(root)["cuts"].notna().all()
    pq.write_table(pq.read_table(root / "index.parquet").drop_columns("cuts"), root / "index.parquet")
    assert read_index(root)["cuts"].isna().all()
    assert read_index_table(root, columns=["cuts", "path"]).column_names == ["path", "cuts"]
    assert read_index_table(root, columns=["path"]).column_names == ["path"]
    drop_videos(root, ["b"])
    assert list(read_index(root)["video_id"]) == ["-a, 1_2"] and read_index(root)["cuts"].isna().all()


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"video_id": ["a", "a", "b"], "clip_index": [0, 1, 0]}, None),
        ({"video_id": ["a", "a", "b"], "clip_index": [0, 0, 0]}, "rows are not in order"),
        ({"video_id": ["a", "a", "b"], "clip_index": [1, 2, 0]}, "rows are not in order"),
        ({"video_id": ["a", "b", "a"], "clip_index": [0, 0, 0]}, "rows of one video are not together"),
        ({"video_id": ["a", "a"], "clip_index": [0, 1], "start_seconds": [5.0, 0.0]}, "not in time order"),
        ({"start_seconds": [5.0], "end_seconds": [4.0]}, "a clip ends before it starts"),
        ({"start_seconds": [5.0], "end_seconds": [5.0]}, None),
        ({"fps": [0.0]}, "not a rate"),
        ({"fps": [1e-3]}, None),
        ({"label": [None]}, None),
        ({"video_id": pa.array([], pa.string()), "clip_index": pa.array([], pa.int32())}, None),
    ],
)
def test_faults(columns: dict[str, object], fault: str | None) -> None:
    found = fault_in(pa.table(columns))
    assert found is None if fault is None else fault in str(found)


@pytest.mark.videos
def test_a_flipped_bit_of_the_index_is_noticed(root: Path, tmp_path: Path) -> None:
    """Wherever it lies: never another value, always the same one or a line that says what to do."""
    build_index(root)
    good, data = read_index_table(root), (root / "index.parquet").read_bytes()
    rng = random.Random(4)
    for _ in range(600):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "index.parquet").write_bytes(flipped)
        try:
            assert read_index_table(tmp_path).equals(good)
        except HicoError as error:
            assert "run `hico index" in str(error)


CLIP = ClipRecord(
    path="train/v_a_0000000_0005000.mp4",
    start_ms=0,
    end_ms=5000,
    start_seconds=0.0,
    end_seconds=5.0,
    num_frames=150,
    width=64,
    height=48,
    codec="h264",
    keyframe_interval=32,
    size_bytes=1,
    sha256=None,
)
LATER = CLIP.model_copy(update={"path": "train/v_a_0005000_0010000.mp4", "start_seconds": 5.0, "end_seconds": 10.0})


@given(
    field=st.sampled_from(["num_frames", "width", "first_frame", "start_ms", "size_bytes"]),
    number=st.integers(-2, 2),
    moment=st.sampled_from([-1.0, 0.0, 4.0, 6.0, 11.0, math.nan, math.inf, 1e12]),
    which=st.sampled_from(["start_seconds", "end_seconds"]),
    place=st.integers(0, 1),
    fps=st.sampled_from([25.0, 0.0, -1.0, math.nan, math.inf, None]),
)
def test_what_is_committed_is_what_can_be_read(
    field: str, number: int, moment: float, which: str, place: int, fps: float | None
) -> None:
    """The rules for records and the reader's own: a record passes the ones where its rows pass the others."""
    clips = [CLIP, LATER]
    clips[place] = clips[place].model_copy(update={field: number, which: moment})
    record = VideoRecord(
        hico_version="0",
        video_id="a",
        source=SourceFile(path="a.mp4", size_bytes=1, mtime_ns=1),
        options=SplitOptions(),
        attempts=1,
    ).model_copy(update={"clips": clips, "fps": fps, "variable_fps": False})
    rows = pa.RecordBatch.from_pydict(_columns_of(record, "train", Path("root")), schema=SCHEMA)
    assert (fault_in_record(record) is None) == (fault_in(pa.Table.from_batches([rows])) is None)


@pytest.mark.videos
@pytest.mark.processes
def test_clips_that_were_deleted_by_hand(tmp_path: Path) -> None:
    """They are left out and named, and the command ends with 3; a hole between the others shows in their times."""
    for name in ("a", "b", "c"):
        numbered_video(tmp_path / f"videos/{name}.mp4", seconds=14)
    numbered_video(tmp_path / "in place/d.mp4", seconds=6)
    root = tmp_path / "root"
    split_into(root, tmp_path / "videos")
    assert hico("index", "--untrimmed", tmp_path / "in place", root=root).returncode == 0
    before = read_index(root)
    for name in ("v_a_0000000_0005000.mp4", "v_b_0005000_0010000.mp4"):
        (root / "train" / name).unlink()
    for path in (root / "train").glob("v_c_*"):
        path.unlink()
    (tmp_path / "in place/d.mp4").unlink()
    done = hico_process("index", "--json", root=root)
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert (told["num_videos"], told["num_clips"], told["num_missing"]) == (2, 4, 7)
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("hico: ") for line in lines)
    assert "train/v_a_0000000_0005000.mp4: 1 of 3 clips of 'a' is missing and left out" in lines[0]
    assert "3 of 3 clips of 'c' are missing" in lines[2] and f"{tmp_path}/in place/d.mp4: no such file" in lines[3]
    left = read_index(root)
    kept = before[before["path"].isin(left["path"])].reset_index(drop=True)
    assert left["path"].tolist() == [name for name in before["path"] if (root / name).exists()]
    assert left["num_clips"].tolist() == [2, 2, 2, 2] and left["clip_index"].tolist() == [0, 1, 0, 1]
    assert left["start_seconds"].equals(kept["start_seconds"]) and left["variable_fps"].all()
    listed = (root / "training.txt").read_text().splitlines()
    assert listed == ["a,0005000,0010000", "a,0010000,0014000", "b,0000000,0005000", "b,0010000,0014000"]
    # What the message says mends it.
    assert hico("split", tmp_path / "videos", "--force", "--preset", "ultrafast", root=root).returncode == 0
    assert hico("remove", "d", root=root).returncode == 0
    assert hico("index", root=root).returncode == 0
    shutil.rmtree(root / "train")
    done = hico("index", root=root)
    assert done.returncode == 1 and "no clip of its records exists" in done.stderr
