"""The parts of a finetuning run, built so that every mistake is reported before any work is done."""

import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from hico_core.base.addresses import Location, absolute, name_from
from hico_core.base.errors import Interrupted, UsageError
from hico_core.checkpoints.content import Content, EncoderOrigin, file_of
from hico_core.checkpoints.reading import CheckpointFile, backbone_of, load_exactly, model_as, model_of, read_checkpoint
from hico_core.checkpoints.warm_start import warm_start
from hico_core.config import (
    FinetuneConfig,
    ModelConfig,
)
from hico_core.data.batches import Batch
from hico_core.data.labelled import RandomViews
from hico_core.data.loader import read_batches
from hico_core.data.other_decoders import require_decoder
from hico_core.data.plan import PlannedStep, Position, TrainingOrder, plan_steps
from hico_core.data.shared_memory import require_room_for_batches
from hico_core.data.videos import IndexedVideos
from hico_core.data.workers import num_workers
from hico_core.encoders.trained import build_encoder, feature_dim
from hico_core.model.classifier import VideoClassifier
from hico_core.training.distributed import World, from_first, gather_objects
from hico_core.training.learner import Learner, learner_of
from hico_core.training.optim import adam_options, parameter_groups
from hico_core.training.schedule import RateSchedule, order_of, rates_of
from hico_core.training.step import ALONE, augmented_clips, seed_layers
from hico_core.training.stopping import StopRequest, end_if_asked
from hico_core.transfer.evaluation.labelled import LabelledVideo, labelled_among
from hico_core.transfer.evaluation.predictions import Prediction, Shown, predictions_of, shown_in_tests
from hico_core.transfer.finetuning.step import classification_step
from hico_core.transfer.finetuning.videos import LabelledSets, labelled_sets

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """The parts of a run."""

    config: FinetuneConfig
    videos: LabelledSets
    dataset: RandomViews  # of the training videos
    learner: Learner[VideoClassifier]
    encoder: EncoderOrigin | None  # from which a new run begins
    order: TrainingOrder
    rates: RateSchedule
    workers: int
    shown: Shown  # views and crops of each test video

    def batches(self, position: Position, world: World) -> Generator[tuple[PlannedStep, Batch], None, None]:
        """Yield each planned step with this process's clips."""
        plans = plan_steps(
            self.order,
            max_distance_at=lambda progress: None,
            start=position,
            rank=world.rank,
            processes=world.size,
        )
        return read_batches(self.dataset, plans, workers=self.workers, pin_memory=self.learner.device.type == "cuda")

    def learn(self, plan: PlannedStep, batch: Batch, world: World) -> tuple[float, float]:
        """One update from a step's clips; see `classification_step`."""
        learner, augment, size = self.learner, self.config.augment, self.config.data.crop_size
        labels = torch.tensor([self.videos.labels[video_id] for video_id in batch.video_ids]).to(learner.device)
        clips = augmented_clips(
            batch, size=size, mean=augment.channel_means, std=augment.channel_stds, device=learner.device
        )
        seed_layers(seed=self.config.train.seed, step=plan.position.step, rank=world.rank)
        return classification_step(learner, clips, labels, lr=self.rates.at(plan.epoch), world=world)

    def predictions(self, videos: IndexedVideos, world: World, stop: StopRequest) -> Iterator[Prediction]:
        """What the classifier predicts for each video of this process's share.

        Raises:
            Interrupted: a signal requested the end.

        """
        with stop.may_interrupt():
            yield from predictions_of(
                self.learner.model,
                share_of(videos, world),
                self.shown,
                precision=self.learner.precision,
                workers=self.workers,
                stop=stop,
            )

    def val_accuracy(self, world: World, stop: StopRequest) -> float:
        """Fraction of the validation videos classified correctly; each process tests its share.

        Raises:
            Interrupted: a signal asked one of the processes to end.

        """
        right: list[bool] = []
        with suppress(Interrupted):  # and then the processes end together
            for prediction in self.predictions(self.videos.val, world, stop):
                right.append(prediction.predicted == prediction.label)
        end_if_asked(stop, world)
        return fmean(chain.from_iterable(gather_objects(right, world)))


def share_of(videos: IndexedVideos, world: World) -> list[LabelledVideo]:
    """The videos that this process tests."""
    return labelled_among(videos)[world.rank :: world.size]


def prepare(
    config: FinetuneConfig, *, root: Location, start: "Start", device: torch.device, world: World, joined: bool = True
) -> Finetuning:
    """Read the index and build all parts.

    Args:
        config: of the run.
        root: the workspace with index.parquet.
        start: where the encoder's weights come from.
        device: of this process.
        world: this process among all that train together.
        joined: whether these processes are connected; if not, the model is this process's alone.

    Raises:
        HicoError: there are no labelled videos, or too few; a label is not a class; the encoder cannot be read; or the
            machine has too little shared memory for the workers.

    """
    data, train = config.data, config.train
    require_decoder(data.decoder)
    videos = labelled_sets(
        root, batch_size=train.batch_size, num_classes=config.num_classes, processes=world.size, cache=data.cache
    )
    workers = num_workers(data.workers, processes=world.local_size)
    require_room_for_batches(
        data,
        config.augment,
        clips=train.batch_size // world.size,
        largest_short_side=videos.train.largest_short_side,
        workers=workers,
        processes=world.local_size,
    )
    together = world if joined else ALONE
    beginning = _beginning(start, root, together, named=config.model.encoder)
    torch.manual_seed(train.seed)
    backbone = build_encoder(beginning.model)
    width = feature_dim(backbone, name=beginning.model.encoder, num_frames=data.num_frames, size=data.crop_size)
    model = VideoClassifier(videos.num_classes, backbone, width)
    load_exactly(model.backbone, beginning.weights, origin=str(start.encoder))
    return Finetuning(
        config=config,
        videos=videos,
        dataset=RandomViews(videos.train, data=data, augment=config.augment),
        learner=_learner(model, config, device=device, world=together),
        encoder=beginning.origin,
        order=order_of(config, num_videos=len(videos.train)),
        rates=rates_of(config, peak=config.optim.base_lr),
        workers=workers,
        shown=shown_in_tests(config.test, data, config.augment),
    )


def _learner(
    model: VideoClassifier, config: FinetuneConfig, *, device: torch.device, world: World
) -> Learner[VideoClassifier]:
    """Make the model ready to be trained, as a whole or only its classifier."""
    train, optim = config.train, config.optim
    if train.tune == "head":
        model.backbone.requires_grad_(False)
    learner = learner_of(
        model,
        lambda model: torch.optim.Adam(
            parameter_groups(model, weight_decay=optim.weight_decay, lars_exclude_bn=False),
            **adam_options(model, optim.warmup_start_lr),
        ),
        device=device,
        world=world,
        precision=train.precision,
    )
    if train.tune == "head" and train.statistics == "frozen":
        model.backbone.eval()
    return learner


class Start(NamedTuple):
    """Where the weights of a run's encoder come from."""

    encoder: Path | None  # a checkpoint of ours or the authors', for a new run
    checkpoint: Content | None  # the last checkpoint of a run that continues


class Beginning(NamedTuple):
    """The encoder with which a run begins or continues."""

    model: ModelConfig
    weights: dict[str, Tensor]
    origin: EncoderOrigin | None  # of the file, if a new run begins


def _beginning(start: Start, root: Location, world: World, *, named: str | None) -> Beginning:
    """Read the encoder in the first process; the others may not see its file.

    Args:
        start: where its weights come from.
        root: the workspace.
        world: this process among all that train together.
        named: name of the network; None: as in the file.

    Raises:
        UsageError: no encoder is given.
        HicoError: the file cannot be read, or holds another network.

    """
    if start.checkpoint is not None:  # it holds the encoder from which the run began, wherever that file is now
        if start.encoder is not None and world.is_first:
            logger.warning("%s is not loaded: the run continues from its last checkpoint", start.encoder)
        file = file_of(start.checkpoint, "the run's last checkpoint")
        return Beginning(_model_in(file, named), backbone_of(file), None)
    if start.encoder is None:
        raise UsageError("no encoder to start from, and no checkpoint of the run; name one with --checkpoint")
    read = from_first(_read_encoder(start.encoder, root, named) if world.is_first else None, world)
    assert read is not None
    return read


def _read_encoder(encoder: Path, root: Location, named: str | None) -> Beginning:
    """Read the encoder of a file, together with the file's identity."""
    file = read_checkpoint(encoder)
    model = _model_in(file, named)
    origin = EncoderOrigin(path=name_from(root, absolute(encoder)), sha256=file.sha256, model=model)
    return Beginning(model, warm_start(file, build_encoder(model), name=model.encoder).weights, origin)


def _model_in(file: CheckpointFile, named: str | None) -> ModelConfig:
    return model_of(file) if named is None else model_as(file, named)
