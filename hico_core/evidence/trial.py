"""One trial: a prepared corpus, an encoder trained on it, and probes of its features."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hico_core.base.choices import Design
from hico_core.base.errors import HicoError
from hico_core.base.storage import written_beside
from hico_core.base.tally import VideoEvent
from hico_core.corpus.index import build_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.pictures import picture_for
from hico_core.encoding.encoder import encode_clips
from hico_core.evidence.arms import AUGMENT, DATA
from hico_core.evidence.corpus import CorpusRecipe, SegmentLabel, make_corpus
from hico_core.evidence.segments import LabelledSegments, Score, SegmentClips, probe_segments, read_segments
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg_tiny import S3DGTiny

# The encoder's view of each frame of a segment, the same for all arms.
PICTURE = picture_for(DATA, AUGMENT)


class Corpus(NamedTuple):
    """The identity of a corpus, apart from its number of videos."""

    design: Design
    look: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the corpus's folder."""
        return f"{self.design}-look{self.look:g}-seed{self.seed}"


class Place(NamedTuple):
    """Where a rendered, split and indexed corpus lies."""

    root: Path  # the workspace

    @property
    def videos(self) -> Path:
        """Folder of the rendered videos."""
        return self.root / "videos"

    def run_dir(self, name: str) -> Path:
        """Folder of a training."""
        return self.root / "runs" / name


def prepare_corpus(
    corpus: Corpus, place: Place, *, videos: int, workers: int, on_video: Callable[[str], None] = lambda done: None
) -> list[SegmentLabel]:
    """Make, split and index a corpus; finished work is skipped.

    Args:
        corpus: the corpus.
        place: where it lies.
        videos: total number for training and testing.
        workers: number of videos split in parallel.
        on_video: called with a line about each video that is rendered or split.

    Raises:
        HicoError: the folder holds something else, the disk is full, or a video cannot be split.

    """
    recipe = CorpusRecipe(videos=videos, seed=corpus.seed, design=corpus.design, look=corpus.look)
    labels = make_corpus(recipe, place.videos, on_video=lambda number: on_video(f"{number + 1}/{videos} videos made"))
    for subset in ("train", "test"):
        split_all(
            find_sources([str(place.videos / subset)]),
            place.root,
            SplitOptions(subset=subset),
            workers=workers,
            on_event=lambda event: on_video(f"{event.num_done}/{event.num_videos} videos split"),
        )
    build_index(place.root)
    return labels


def split_all(
    sources: list[Source],
    root: Path,
    options: SplitOptions,
    *,
    workers: int,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
) -> None:
    """Split videos; an experiment needs every one of them.

    Raises:
        HicoError: a video cannot be split.

    """
    summary = split_videos(sources, root=root, options=options, workers=workers, on_event=on_event)
    if summary.num_failed:
        raise HicoError(f"{summary.num_failed} videos cannot be split; see {root / 'failures.jsonl'}")


def segment_clips(place: Place, labels: list[SegmentLabel]) -> SegmentClips:
    """The clips on which all arms are probed; read once, and kept beside the corpus."""
    kept = place.root / "segments.pt"
    if not kept.exists():
        clips = read_segments(place.root, labels, DATA, PICTURE)
        with written_beside(kept) as beside:
            torch.save(clips, beside)
    return SegmentClips(labels, torch.load(kept, weights_only=True))


def untrained_encoder(seed: int) -> nn.Module:
    """The baseline: the arms' encoder before any training."""
    torch.manual_seed(seed)
    return S3DGTiny()


def num_training_videos(labels: list[SegmentLabel]) -> int:
    """Number of a corpus's videos that are trained on."""
    return len({label.video for label in labels if label.subset == "train"})


def probe_encoder(encoder: nn.Module, clips: SegmentClips, *, seed: int) -> list[Score]:
    """Probe an encoder: test on the features of the test segments after training on those of the training segments."""
    pooled = PooledEncoder(encoder)
    train, test = (
        LabelledSegments(encode_clips(pooled, part.clips, PICTURE).numpy(), part.labels)
        for part in (clips.of_subset("train"), clips.of_subset("test"))
    )
    return probe_segments(train, test, seed=seed)
