"""The smallest piece of the benchmark on real videos: one arm, trained on a corpus and asked for its labels.

Encoders are asked as `hico compare` asks them: the middle of each clip, linear probe and nearest neighbours over five
folds by group. Labels train nothing but probes and the supervised arm, which is trained for each fold anew.
"""

# N clips, F feature width.

import csv
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from arms import CUTS, RATE, setting_of, supervision
from trainings import train_with_labels, write_part_of_index, write_untrained

from hico_core.base.errors import HicoError
from hico_core.checkpoints.frozen import FrozenEncoder, load_frozen
from hico_core.config import AugmentConfig, DataConfig
from hico_core.corpus.index import build_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.grouped_lists import read_grouped_list
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.videos import open_videos
from hico_core.encoding.windows import Grid
from hico_core.evidence.arms import AUGMENT, FAR_3, HICO, VIDEOS_PER_STEP, Arm, Setting, pretraining
from hico_core.evidence.trial import split_all
from hico_core.training.loop import pretrain
from hico_core.transfer.evaluation.clip_features import Computing, features_of_clips
from hico_core.transfer.evaluation.compare import predict_by_folds
from hico_core.transfer.evaluation.folds import SplitClips, folds_by_group, split_into_folds
from hico_core.transfer.evaluation.localisation import BACKGROUND
from hico_core.transfer.evaluation.localisation_probe import AnnotatedSeconds, labels_of_seconds, predict_seconds
from hico_core.transfer.features import FeatureExtractor
from hico_core.transfer.localisation.annotations import Segment

NEAR = Arm(
    "simclr-near",
    "SimCLR, three clips within 1 s of each other",
    {"distance": "fixed", "end_seconds": 1.0, "topical": False},
    {"name": "simclr"},
)
PRETRAINED = {arm.name: arm for arm in (NEAR, FAR_3, HICO, CUTS)}

# Encoders that are not trained here, as `hico compare` takes them.
FROZEN = {"pixels": "pixels", "motion": "motion", "imagenet": "python:public_lite0:lite0"}

MEANINGS = {
    "untrained": "an encoder that was never trained",
    "pixels": "no encoder: the mean picture, 8 x 8",
    "motion": "no encoder: where something moves, 8 x 8, in four parts of a clip",
    "imagenet": "EfficientNet-Lite0 with its ImageNet weights, frame by frame",
    **{arm.name: arm.meaning for arm in PRETRAINED.values()},
    "supervised": "trained on the labels of the other folds: an upper bound",
}

# As `hico compare` has them by default.
_FOLDS, _NEIGHBOURS = 5, 20

_FRAMES, _FPS = 8, 15.0

Augmentation = Literal["strong", "weak"]

# Nothing is flipped: left and right are classes.
_STRONG = AUGMENT.model_copy(update={"flip_probability": 0.0})
AUGMENTATIONS: dict[Augmentation, AugmentConfig] = {
    "strong": _STRONG,  # that of the synthetic benchmark
    # Crops of 0.65 to 0.75 of the picture, in which nearly all of a gesture is seen, and half the colours.
    "weak": _STRONG.model_copy(
        update={"crop_jitter": (238, 255), "brightness": 0.2, "contrast": 0.2, "saturation": 0.4, "hue": 0.15}
    ),
}

Design = Literal["", "untrimmed", "trimmed"]

# Of clips, but for the last: of each second of sessions. place-r1: the nearest other clip is of the same group.
RealProbe = Literal["linear", "knn", "place-r1", "second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What may be chosen, alike for all arms; 0 steps train nothing."""

    pixels: int = 0
    stride: int = 0  # frames at 15 fps from one frame of a clip to the next
    augmentation: Augmentation = "strong"
    steps: int = 0
    rate: float = 0.0
    encoder: str = "s3dg-tiny"

    def setting(self) -> Setting:
        """The encoder, and what it sees of videos."""
        data = DataConfig(
            num_frames=_FRAMES,
            frame_stride=self.stride,
            target_fps=_FPS,
            crop_size=self.pixels,
            short_side=self.pixels * 3 // 2,
            workers=0,
            memory_gb=1.0,
            epochs_per_round=1,
        )
        return Setting(data, AUGMENTATIONS[self.augmentation], self.encoder)


NOTHING = Training()


class RealCorpus(NamedTuple):
    """What scripts/real_corpus.py wrote."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the set."""
        return self.folder.name

    def clips(self) -> SplitClips:
        """All labelled clips, and when each is tested."""
        listed = read_grouped_list(self.folder / "clips.txt", data_root=self.folder)
        if listed.bad:
            raise HicoError(listed.bad[0])
        return split_into_folds(listed, num_folds=_FOLDS)

    def seconds_of_sessions(self) -> AnnotatedSeconds:
        """What happens in each second of the untrimmed videos, each of which is a group of its own."""
        segments: dict[str, list[Segment]] = {}
        with (self.folder / "untrimmed_segments.csv").open(newline="") as opened:
            for row in csv.DictReader(opened):
                segment = Segment(
                    video=row["session"],
                    start_seconds=float(row["start_s"]),
                    end_seconds=float(row["end_s"]),
                    label=row["label"],
                    subset=None,
                )
                segments.setdefault(segment.video, []).append(segment)
        names = sorted({segment.label for own in segments.values() for segment in own})
        number_of = {name: number for number, name in enumerate(names, start=BACKGROUND + 1)}
        labels = [
            labels_of_seconds(own, number_of, duration_seconds=max(segment.end_seconds for segment in own))
            for own in segments.values()
        ]
        return AnnotatedSeconds(
            videos=list(segments),
            groups=list(segments),
            lengths_V=np.array([len(of_video) for of_video in labels]),
            labels_N=np.concatenate(labels),
            classes=["", *names],
        )

    def clips_of_sessions(self) -> list[Path]:
        """Those that the untrimmed videos consist of."""
        with (self.folder / "untrimmed_segments.csv").open(newline="") as opened:
            return [self.folder / row["source_clip"] for row in csv.DictReader(opened)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCell:
    """One arm on one corpus."""

    corpus: RealCorpus
    arm: str
    design: Design = ""  # of what is pretrained on; "": nothing is
    seed: int = 0
    training: Training = NOTHING

    @property
    def name(self) -> str:
        """Of its file of results."""
        training = self.training
        trained = f"{training.pixels}px-{training.stride}-{training.augmentation}-{training.steps}-{training.rate:g}"
        encoder = "" if training.encoder == NOTHING.encoder else training.encoder
        shown = (trained, encoder) if training.pixels else ()
        parts = (self.corpus.name, self.design, self.arm, f"seed{self.seed}", *shown)
        return "-".join(part for part in parts if part)

    @property
    def columns(self) -> dict[str, Any]:
        """Of its rows in the table of results."""
        cell = {"corpus": self.corpus.name, "arm": self.arm, "design": self.design, "seed": self.seed}
        return cell | asdict(self.training)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScore:
    """Whether one probe is right about one clip."""

    probe: RealProbe
    clip: str  # its path below the corpus
    label: str
    group: str
    correct: bool

    _asdict = asdict


def prepare_real(cell: RealCell, root: Path) -> None:
    """Split and index a corpus: its sessions below root/untrimmed, each clip alone below root/trimmed.

    Raises:
        HicoError: a video cannot be split, or the corpus is damaged.

    """
    corpus = cell.corpus
    inputs = {
        "untrimmed": [str(corpus.folder / "untrimmed")],
        "trimmed": [str(clip.path) for clip in corpus.clips().clips],
    }
    for design, videos in inputs.items():
        split_all(find_sources(videos), root / design, SplitOptions(), workers=1)
        build_index(root / design)
    write_part_of_index(root / "trimmed", root / "alone", {path.stem: None for path in corpus.clips_of_sessions()})


def run_real(cell: RealCell, root: Path) -> list[ClipScore]:
    """Train and probe a cell from its beginning; its run is not kept.

    Raises:
        HicoError: the run cannot be done.

    """
    run_dir = root / "runs" / cell.name
    shutil.rmtree(run_dir, ignore_errors=True)  # of a command that was killed
    split = cell.corpus.clips()
    if cell.arm == "supervised":
        scores = []
        for fold in np.unique(split.tested_in):
            one = split._replace(tested_in=np.where(split.tested_in == fold, fold, -1))
            encoder = _supervised(cell, one, root, run_dir / f"fold{fold}")
            scores += probe_clips(load_frozen(str(encoder)), one, cell.corpus, kept=root / "kept")
    else:
        frozen = load_frozen(_encoder_of(cell, root, run_dir))
        scores = probe_clips(frozen, split, cell.corpus, kept=root / "kept") + probe_seconds(frozen, cell.corpus)
    shutil.rmtree(run_dir, ignore_errors=True)
    return scores


def _encoder_of(cell: RealCell, root: Path, run_dir: Path) -> str:
    """Train what needs it; the encoder as `load_frozen` takes it."""
    if cell.arm in FROZEN:
        return FROZEN[cell.arm]
    setting = setting_of(cell.arm, cell.training.setting())
    if cell.arm == "untrained":
        file = run_dir / "untrained.safetensors"
        config = supervision(num_segments=1, steps=1, rate=RATE, seed=cell.seed, setting=setting)
        write_untrained(file, config, encoder=setting.encoder)
        return str(file)
    videos = root / ("untrimmed" if cell.design == "untrimmed" else "alone")
    training = pretraining(
        PRETRAINED[cell.arm],
        num_videos=len(open_videos(videos, subset="train", data=setting.data)),
        steps=cell.training.steps,
        rate=cell.training.rate,
        seed=cell.seed,
        setting=setting,
    )
    return str(pretrain(training, root=videos, run_dir=run_dir, device="cpu").encoder)


def _supervised(cell: RealCell, split: SplitClips, root: Path, run_dir: Path) -> Path:
    """Train on the labels of all clips that are not tested."""
    _, label_N = np.unique(split.labels, return_inverse=True)
    labels = {
        clip.path.stem: int(label)
        for clip, label, fold in zip(split.clips, label_N, split.tested_in, strict=True)
        if fold < 0
    }
    write_part_of_index(root / "trimmed", run_dir / "videos", labels)
    config = supervision(
        num_segments=len(labels),
        steps=cell.training.steps,
        rate=cell.training.rate,
        seed=cell.seed,
        setting=cell.training.setting(),
        batch_size=min(VIDEOS_PER_STEP, len(labels)),
    )
    return train_with_labels(config, root=run_dir / "videos", run_dir=run_dir / "run")


def probe_clips(encoder: FrozenEncoder, split: SplitClips, corpus: RealCorpus, *, kept: Path) -> list[ClipScore]:
    """What an encoder's features tell of the clips that are tested, as `hico compare` asks them; and of their place.

    Args:
        encoder: whose features are asked.
        split: clips and when they are tested.
        corpus: whose clips they are.
        kept: folder of features.

    Raises:
        HicoError: a clip cannot be read.

    """
    paths = [clip.path for clip in split.clips]
    computing = Computing("cpu", 0)
    found = features_of_clips(encoder, paths, kept, num_views=1, computing=computing)
    features = [array for array in found if array is not None]
    if len(features) < len(paths):
        raise HicoError(f"{corpus.folder}: {len(paths) - len(features)} of {len(paths)} clips cannot be read")
    _, label_N = np.unique(split.labels, return_inverse=True)
    predicted = predict_by_folds(features, split, num_neighbours=_NEIGHBOURS)
    right: dict[RealProbe, np.ndarray] = {
        "linear": predicted["linear"] == label_N,
        "knn": predicted["knn"] == label_N,
        "place-r1": finds_its_place(features, split.groups),
    }
    return [
        ClipScore(
            probe=probe,
            clip=Path(str(clip.path)).relative_to(corpus.folder).as_posix(),
            label=clip.label,
            group=clip.group,
            correct=bool(is_right),
        )
        for probe, right_N in right.items()
        for clip, is_right, fold in zip(split.clips, right_N, split.tested_in, strict=True)
        if fold >= 0
    ]


def probe_seconds(encoder: FrozenEncoder, corpus: RealCorpus) -> list[ClipScore]:
    """What an encoder's features tell of each second of the untrimmed videos, as `hico probe --segments` asks them.

    Raises:
        HicoError: a video cannot be read.

    """
    seconds, clip = corpus.seconds_of_sessions(), encoder.entry.clip
    grid = Grid(fps=clip.fps, window=clip.num_frames, stride=round(clip.fps), align="center")  # a window a second
    extractor = FeatureExtractor.from_encoder(encoder, grid=grid, device="cpu")
    features = []
    for video, length in zip(seconds.videos, seconds.lengths_V, strict=True):
        found = extractor.extract(corpus.folder / "untrimmed" / f"{video}.mp4")
        distance_NW = np.abs(np.arange(length)[:, None] + 0.5 - found.times.mean(axis=1))
        features.append(found.array[distance_NW.argmin(axis=1)])
    groups_N = seconds.groups_of_seconds
    tested_in = folds_by_group(seconds.labels_N, groups_N, _FOLDS)
    predicted_N = predict_seconds(np.concatenate(features), seconds, tested_in).labels_N
    places_N = np.concatenate([np.arange(length) for length in seconds.lengths_V])
    return [
        ClipScore(
            probe="second",
            clip=f"untrimmed/{group}.mp4 {place}",
            label=seconds.classes[label],
            group=str(group),
            correct=bool(label == predicted),
        )
        for group, place, label, predicted in zip(groups_N, places_N, seconds.labels_N, predicted_N, strict=True)
    ]


def finds_its_place(features: Sequence[np.ndarray], groups: Sequence[str]) -> np.ndarray:
    """Whether the nearest other clip, by cosine similarity, is of the same group: (N,) bool.

    Args:
        features: (1, F) of each clip.
        groups: of each clip.

    """
    rows_NF = np.concatenate(features)
    units_NF = rows_NF / np.linalg.norm(rows_NF, axis=1, keepdims=True).clip(1e-12)
    similarity_NN = units_NF @ units_NF.T
    np.fill_diagonal(similarity_NN, -np.inf)
    group_N = np.asarray(groups)
    found: np.ndarray = group_N[similarity_NN.argmax(axis=1)] == group_N
    return found
