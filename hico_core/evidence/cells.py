"""The smallest pieces of evidence: a corpus that is ready to be trained on, and one arm trained on it and probed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from hico_core.choices import Design
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.files import written_beside
from hico_core.corpus.finding import find_sources
from hico_core.corpus.index import build_index
from hico_core.corpus.records import SplitOptions
from hico_core.corpus.split import split_videos
from hico_core.data.pictures import picture_for
from hico_core.errors import HicoError
from hico_core.evidence.arms import AUGMENT, DATA, PRETRAINED, pretraining, supervision
from hico_core.evidence.corpus import CorpusRecipe, SegmentLabel, make_corpus
from hico_core.evidence.segments import (
    LabelledSegments,
    Score,
    SegmentClips,
    pixels_of,
    probe_segments,
    read_segments,
)
from hico_core.evidence.world import ACTIONS, FPS
from hico_core.interop.checkpoints import load_backbone
from hico_core.model.encoders import Encoder
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.checkpoint import export_encoder
from hico_core.training.encoder import encode_clips
from hico_core.training.loop import pretrain
from hico_core.transfer.finetune import finetune

# Side of the pictures that nearest neighbours of pixels look at.
_PIXELS = 8

# What encoders see of each frame of a segment, alike for all arms.
_PICTURE = picture_for(DATA, AUGMENT)


class Corpus(NamedTuple):
    """Which videos, apart from their number."""

    design: Design
    look: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.design}-look{self.look:g}-seed{self.seed}"


class Cell(NamedTuple):
    """One arm on one corpus."""

    corpus: Corpus
    arm: str
    steps: int  # 0: nothing is trained
    rate: float
    trimmed: bool = False  # each segment counts as a video of its own

    @property
    def name(self) -> str:
        """Of its file of results."""
        trimmed = "-trimmed" if self.trimmed else ""
        length = f"-{self.steps}-{self.rate:g}" if self.steps else ""
        return f"{self.corpus.name}{trimmed}-{self.arm}{length}"


class Place(NamedTuple):
    """Where a corpus lies once it is made, split and indexed."""

    root: Path  # the workspace

    @property
    def videos(self) -> Path:
        """As they were made."""
        return self.root / "videos"

    @property
    def trimmed(self) -> Path:
        """A workspace whose index has each segment as a video, with its action as the label."""
        return self.root / "trimmed"

    def run_dir(self, name: str) -> Path:
        """Of a training."""
        return self.root / "runs" / name


def prepare_corpus(
    corpus: Corpus, place: Place, *, videos: int, workers: int, on_video: Callable[[str], None] = lambda done: None
) -> list[SegmentLabel]:
    """Make a corpus, split it, index it. What is there already is left alone.

    Args:
        corpus: which.
        place: where.
        videos: how many, for training and testing together.
        workers: videos that are split at a time.
        on_video: told of each video that is made or split.

    Raises:
        HicoError: the folder holds something else, the disk has no room, or a video cannot be split.

    """
    recipe = CorpusRecipe(videos=videos, seed=corpus.seed, design=corpus.design, look=corpus.look)
    labels = make_corpus(recipe, place.videos, on_video=lambda number: on_video(f"{number + 1}/{videos} videos made"))
    for subset in ("train", "test"):
        sources = find_sources([str(place.videos / subset)])
        summary = split_videos(
            sources,
            root=place.root,
            options=SplitOptions(subset=subset),
            workers=workers,
            on_event=lambda event: on_video(f"{event.num_done}/{event.num_videos} videos split"),
        )
        if summary.num_failed:
            raise HicoError(f"{summary.num_failed} videos cannot be split; see {place.root / 'failures.jsonl'}")
    build_index(place.root)
    write_trimmed_index(place, labels)
    return labels


def write_trimmed_index(place: Place, labels: list[SegmentLabel]) -> None:
    """The same files as an index of trimmed videos: of each segment of the training videos that shows an action."""
    table = pq.read_table(place.root / "index.parquet")
    pieces: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        pieces.setdefault(row["video_id"], []).append(row)
    segments = [label for label in labels if label.subset == "train" and label.action is not None]
    rows = [row for label in segments for row in _rows_of_segment(label, pieces[label.video], place.root)]
    with written_beside(place.trimmed / "index.parquet") as beside:
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), beside, write_page_checksum=True)


def _rows_of_segment(label: SegmentLabel, pieces: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """The parts of a video's pieces in which a segment lies, as the rows of a video of its own."""
    first, end = round(label.start * FPS), round(label.end * FPS)
    rows: list[dict[str, Any]] = []
    passed = 0
    for piece in pieces:
        inside = range(max(first, passed), min(end, passed + piece["num_frames"]))
        if inside:
            seconds = {
                "start_seconds": inside.start / FPS - label.start,
                "end_seconds": inside.stop / FPS - label.start,
            }
            own = {
                "video_id": f"{label.video}-{first:04d}",
                "clip_index": len(rows),
                "path": str(root.absolute() / piece["path"]),
                "first_frame": inside.start - passed,
                "num_frames": len(inside),
                "start_ms": round(seconds["start_seconds"] * 1000),
                "end_ms": round(seconds["end_seconds"] * 1000),
                "label": ACTIONS.index(label.action),
            }
            rows.append({**piece, **seconds, **own})
        passed += piece["num_frames"]
    return [{**row, "num_clips": len(rows)} for row in rows]


def segment_clips(place: Place, labels: list[SegmentLabel]) -> SegmentClips:
    """What all arms are probed with; read once, and kept beside the corpus."""
    kept = place.root / "segments.pt"
    if not kept.exists():
        cache = LocalCache(size_bytes=10**9)
        clips = read_segments(place.root, labels, DATA, _PICTURE, cache=cache)
        with written_beside(kept) as beside:
            torch.save(clips, beside)
    return SegmentClips(labels, torch.load(kept, weights_only=True))


def encoder_of(
    cell: Cell,
    place: Place,
    run_dir: Path,
    labels: list[SegmentLabel],
    *,
    resume: bool = False,
) -> Encoder:
    """Train a cell's encoder.

    Args:
        cell: which; not that of pixels.
        place: of its corpus.
        run_dir: where the run's files go.
        labels: of the corpus's segments.
        resume: go on with the run that is there.

    Raises:
        HicoError: the run cannot start or go on.

    """
    if cell.arm == "random":
        torch.manual_seed(cell.corpus.seed)
        return S3DGTiny()
    if cell.arm == "supervised":
        return _supervised(cell, place, run_dir, labels)
    num_videos = len({label.video for label in labels if label.subset == "train"})
    if cell.trimmed:
        num_videos = sum(label.subset == "train" and label.action is not None for label in labels)
    config = pretraining(
        PRETRAINED[cell.arm], num_videos=num_videos, steps=cell.steps, rate=cell.rate, seed=cell.corpus.seed
    )
    root = place.trimmed if cell.trimmed else place.root
    summary = pretrain(config, root=root, run_dir=run_dir, device="cpu", resume=resume)
    return load_backbone(summary.encoder)


def _supervised(cell: Cell, place: Place, run_dir: Path, labels: list[SegmentLabel]) -> Encoder:
    num_segments = sum(label.subset == "train" and label.action is not None for label in labels)
    config = supervision(num_segments=num_segments, steps=cell.steps, rate=cell.rate, seed=cell.corpus.seed)
    torch.manual_seed(cell.corpus.seed)
    start = run_dir.with_name(f"{run_dir.name}-start.safetensors")
    export_encoder(start, S3DGTiny(), _PICTURE)
    finetune(config, root=place.trimmed, run_dir=run_dir, encoder=start, device="cpu")
    return load_backbone(run_dir / "checkpoints" / "last.pt")


def probe_cell(cell: Cell, encoder: Encoder | None, clips: SegmentClips) -> list[Score]:
    """What a cell's features tell; without an encoder, the pictures themselves."""
    parts = [clips.of_subset(subset) for subset in ("train", "test")]
    if encoder is None:
        features = [pixels_of(part.clips, side=_PIXELS) for part in parts]
    else:
        pooled: nn.Module = PooledEncoder(encoder)
        features = [encode_clips(pooled, part.clips, _PICTURE).numpy() for part in parts]
    train, test = (LabelledSegments(rows, part.labels) for rows, part in zip(features, parts, strict=True))
    return probe_segments(train, test, seed=cell.corpus.seed, linear=encoder is not None)


def run_cell(cell: Cell, place: Place, labels: list[SegmentLabel]) -> list[Score]:
    """Train and probe a cell from its beginning; its run is not kept.

    Raises:
        HicoError: the run cannot be done.

    """
    run_dir = place.run_dir(cell.name)
    shutil.rmtree(run_dir, ignore_errors=True)  # of a command that was killed
    encoder = None if cell.arm == "pixels" else encoder_of(cell, place, run_dir, labels)
    scores = probe_cell(cell, encoder, segment_clips(place, labels))
    shutil.rmtree(run_dir, ignore_errors=True)
    return scores


def scores_as_json(cell: Cell, scores: list[Score], *, seconds: float) -> str:
    """What is kept of a cell."""
    corpus, *rest = cell
    fields = {**corpus._asdict(), **dict(zip(Cell._fields[1:], rest, strict=True))}
    return json.dumps({**fields, "seconds": round(seconds, 1), "scores": [score._asdict() for score in scores]})
