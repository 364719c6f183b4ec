"""The smallest piece of the benchmark: one arm, trained and probed on one corpus that is ready to be trained on."""

import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from arms import MIXED_IDS, PRETRAINED, setting_of, supervision
from torch import nn
from trainings import train_with_labels, write_part_of_index
from wrong_videos import wrong_videos

from hico_core.base.storage import written_beside
from hico_core.checkpoints.reading import load_backbone
from hico_core.evidence.arms import pretraining
from hico_core.evidence.corpus import SegmentLabel
from hico_core.evidence.scenery import ACTIONS, FPS
from hico_core.evidence.segments import LabelledSegments, Score, SegmentClips, probe_segments
from hico_core.evidence.trial import (
    Corpus,
    Place,
    num_training_videos,
    probe_encoder,
    segment_clips,
    untrained_encoder,
)
from hico_core.training.loop import pretrain

# Side of the pictures that nearest neighbours of pixels look at.
_PIXELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One arm on one corpus."""

    corpus: Corpus
    arm: str
    steps: int = 0  # 0: nothing is trained
    rate: float = 0.0
    trimmed: bool = False  # each segment counts as a video of its own
    videos: int = 0  # that are trained on; 0: all training videos of the corpus

    @property
    def name(self) -> str:
        """Of its file of results."""
        trimmed = "-trimmed" if self.trimmed else ""
        few = f"-{self.videos}-videos" if self.videos else ""
        length = f"-{self.steps}-{self.rate:g}" if self.steps else ""
        return f"{self.corpus.name}{trimmed}{few}-{self.arm}{length}"

    @property
    def columns(self) -> dict[str, Any]:
        """Of its rows in the table of results."""
        fields = asdict(self)
        del fields["corpus"]
        return {**self.corpus._asdict(), **fields}


def run_cell(cell: Cell, place: Place, labels: list[SegmentLabel]) -> list[Score]:
    """Train and probe a cell from its beginning; its run is not kept.

    Raises:
        HicoError: the run cannot be done.

    """
    run_dir = place.run_dir(cell.name)
    shutil.rmtree(run_dir, ignore_errors=True)  # of a command that was killed
    clips = segment_clips(place, labels)
    if cell.arm == "pixels":
        return _probe_pixels(clips, seed=cell.corpus.seed)
    scores = probe_encoder(_encoder_of(cell, place, run_dir, labels), clips, seed=cell.corpus.seed)
    shutil.rmtree(run_dir, ignore_errors=True)
    return scores


def trimmed_root(place: Place) -> Path:
    """A workspace whose index has each segment as a video, with its action as the label."""
    return place.root / "trimmed"


def write_trimmed_index(place: Place, labels: list[SegmentLabel]) -> None:
    """The same files as an index of trimmed videos: of each segment of the training videos that shows an action."""
    table = pq.read_table(place.root / "index.parquet")
    pieces: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        pieces.setdefault(row["video_id"], []).append(row)
    rows = [
        row for label in _training_segments(labels) for row in _rows_of_segment(label, pieces[label.video], place.root)
    ]
    with written_beside(trimmed_root(place) / "index.parquet") as beside:
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), beside, write_page_checksum=True)


def write_index_of_few(place: Place, labels: list[SegmentLabel], videos: int) -> Path:
    """An index of the first training videos alone, in a workspace of its own, which is returned."""
    root = place.root / f"{videos}-videos"
    training = sorted({label.video for label in labels if label.subset == "train"})
    write_part_of_index(place.root, root, dict.fromkeys(training[:videos]))
    return root


def _training_segments(labels: list[SegmentLabel]) -> list[SegmentLabel]:
    """Those that become trimmed videos."""
    return [label for label in labels if label.subset == "train" and label.action is not None]


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


def _encoder_of(cell: Cell, place: Place, run_dir: Path, labels: list[SegmentLabel]) -> nn.Module:
    """Train a cell's encoder; it is not that of pixels.

    Raises:
        HicoError: the run cannot start or go on.

    """
    if cell.arm == "random":
        return untrained_encoder(cell.corpus.seed)
    if cell.arm == "supervised":
        return _supervised(cell, place, run_dir, labels)
    num_items = len(_training_segments(labels)) if cell.trimmed else cell.videos or num_training_videos(labels)
    config = pretraining(
        PRETRAINED[cell.arm],
        num_videos=num_items,
        steps=cell.steps,
        rate=cell.rate,
        seed=cell.corpus.seed,
        setting=setting_of(cell.arm),
    )
    is_mixed = cell.arm == MIXED_IDS.name
    with wrong_videos(clips_per_video=config.sampling.clips_per_video) if is_mixed else nullcontext():
        root = trimmed_root(place) if cell.trimmed else place.root
        if cell.videos:
            root = write_index_of_few(place, labels, cell.videos)
        return load_backbone(pretrain(config, root=root, run_dir=run_dir, device="cpu").encoder)


def _supervised(cell: Cell, place: Place, run_dir: Path, labels: list[SegmentLabel]) -> nn.Module:
    num_segments = len(_training_segments(labels))
    config = supervision(num_segments=num_segments, steps=cell.steps, rate=cell.rate, seed=cell.corpus.seed)
    return load_backbone(train_with_labels(config, root=trimmed_root(place), run_dir=run_dir))


def pixels_of(clips: torch.Tensor, *, side: int) -> np.ndarray:
    """The pictures themselves, scaled down, as features: (N, T * side * side * 3) float32."""
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = F.interpolate(frames, (side, side), mode="area") / 255
    found: np.ndarray = small.unflatten(0, clips.shape[:2]).flatten(1).numpy()
    return found


def _probe_pixels(clips: SegmentClips, *, seed: int) -> list[Score]:
    """What the pictures themselves tell: as features they are too wide for linear probes."""
    train, test = (
        LabelledSegments(pixels_of(part.clips, side=_PIXELS), part.labels)
        for part in (clips.of_subset("train"), clips.of_subset("test"))
    )
    return probe_segments(train, test, seed=seed, linear=False)
