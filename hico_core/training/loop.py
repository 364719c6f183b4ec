"""Pretraining from an index to a checkpoint, in the order in which things happen."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from hico_core.base.addresses import DEFAULT_ROOT, Location, local_part, locate
from hico_core.base.cache import LocalCache
from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError, Interrupted, UsageError
from hico_core.checkpoints.export import ENCODER, exports
from hico_core.checkpoints.reading import model_of, read_checkpoint, says_its_encoder
from hico_core.checkpoints.warm_start import WarmStart, warm_start
from hico_core.config import Config, as_override, preset
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.sources.lists import labelled_videos
from hico_core.data.batches import Batch
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.other_decoders import require_decoder
from hico_core.data.pictures import picture_for
from hico_core.data.plan import PlannedStep, Position, plan_steps
from hico_core.data.shared_memory import require_room_for_batches
from hico_core.data.videos import IndexedVideos
from hico_core.data.workers import num_workers
from hico_core.encoders.trained import build_encoder, embedding_dim, feature_dim, with_heads
from hico_core.encoding.hardware import Precision
from hico_core.encoding.neighbours import LabelledFeatures, knn_accuracy, read_features
from hico_core.encoding.windows import Views
from hico_core.model.hico import HicoModel
from hico_core.model.recompute import recompute_units
from hico_core.training.collapse import CollapseWatch
from hico_core.training.distributed import World, gather_to_first, own_place
from hico_core.training.fitting import Fitted, fit_batch, require_enough
from hico_core.training.learner import Learner, learner_of
from hico_core.training.log import StepMetrics, require_wandb
from hico_core.training.optim import build_optimizer
from hico_core.training.run import FREE_ON_RESUME, Entered, Leaves, Training, entered_run, opened_training
from hico_core.training.schedule import Schedule, schedule_of
from hico_core.training.step import ALONE, StepResult, augmented_clips, describe_batch, seed_layers, train_step
from hico_core.training.stopping import StopRequest, end_if_asked
from hico_core.training.task import Task, Watch

logger = logging.getLogger(__name__)

_FREE_ON_RESUME = FREE_ON_RESUME | {
    *("train.checkpoint_epochs", "train.compile", "train.recompute", "train.wandb_project"),
    *("eval.knn_list", "eval.knn_epochs", "eval.knn_neighbours"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    run_dir: Path
    encoder: Path
    num_steps: int
    precision: Precision
    first_loss: float | None  # mean of this call's first 10 steps; None if it had nothing left to do
    last_loss: float | None  # mean of its last 10
    knn_accuracy: float | None  # at the end, if requested
    collapsed: bool  # the embeddings of the last steps are nearly alike


def pretrain(
    config: Config | None = None,
    *,
    root: "Location | str" = DEFAULT_ROOT,
    run_dir: Path | None = None,
    device: DeviceName = "auto",
    resume: bool | Literal["changed"] = False,
    init_from: Path | None = None,
    on_step: Callable[[StepMetrics], None] = lambda metrics: None,
) -> RunSummary:
    """Train a HiCo model on the videos of an index, in all processes that were started together.

    Args:
        config: of the run, such as `hico_core.config.preset("k400-hico-l")`; None: hacs-hico-s, with a smaller batch
            size if there are too few videos or too little memory.
        root: the workspace with index.parquet.
        run_dir: folder for its files; None: runs/DATASET-RECIPE in the workspace.
        device: see `choose_device`.
        resume: continue from the run's last checkpoint, or start if there is none. "changed": even if epochs, batch
            size, number of processes or index have changed.
        init_from: a checkpoint whose encoder a new run starts from.
        on_step: called with the metrics of each step, in the first process.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.

    """
    root = locate(root)
    default = preset("hacs-hico-s")
    run_dir = run_dir or local_part(root) / "runs" / f"{(config or default).dataset}-{(config or default).recipe}"
    task = Task(
        config=config or default,
        root=root,
        run_dir=run_dir,
        encoder=init_from,
        device=device,
        resume=bool(resume),
        lower_batch=config is None,
        allow_changed=resume == "changed",
    )
    return run_pretraining(task, Watch(on_step=on_step))


def run_pretraining(task: Task[Config], watch: Watch) -> RunSummary:
    """Run a training to its end, in all processes that were started together.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended the run; a checkpoint was written.

    """
    fitted = fit_batch(task, processes=own_place().size)
    config, encoder = fitted.config, task.run_dir / ENCODER
    task = replace(task, config=config)
    with entered_run(task, free=_FREE_ON_RESUME) as entered:
        world = entered.world
        init_from = None if entered.checkpoint else task.encoder
        parts = prepare(fitted, device=entered.device, init_from=init_from, world=world)
        collapse = CollapseWatch(width=embedding_dim(parts.feature_dim), warns=world.is_first)
        leaves = Leaves(
            keep_every=config.train.checkpoint_epochs,
            wandb_project=config.train.wandb_project,
            first_weights=parts.start and parts.start.origin,
            exports=lambda progress, loss: exports(
                parts.learner.model.backbone, encoder, config, progress, feature_dim=parts.feature_dim, loss=loss
            ),
        )
        index = parts.videos.identity()
        with opened_training(task, entered, parts.learner, index=index, watch=watch, leaves=leaves) as training:
            _report_beginning(parts, entered, init_from=task.encoder)
            for plan, batch in training.arriving(parts.batches(training.progress.position, world)):
                training.save_if_due(plan)
                if training.must_stop(plan):
                    break
                training.check_videos(batch)
                metrics = _step(plan, batch, parts, training, world)
                collapse.look(metrics.embedding_std, metrics.effective_rank)
                training.done(plan, metrics)
            training.end()
            knn = training.measure(lambda stop: parts.knn_accuracy(world, stop))
        return RunSummary(
            run_dir=task.run_dir,
            encoder=encoder,
            num_steps=training.steps_done,
            precision=parts.learner.precision,
            first_loss=training.first_loss,
            last_loss=training.last_loss,
            knn_accuracy=knn,
            collapsed=collapse.at_end(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """The parts of a run."""

    config: Config
    videos: IndexedVideos
    note: str  # what a user should know about the batch size
    dataset: ClipDataset
    learner: Learner[HicoModel]
    feature_dim: int  # of the encoder
    start: WarmStart | None  # what the encoder takes from a file at the start
    schedule: Schedule
    workers: int
    listed: Sequence[Source]  # for the k-NN accuracy; may be empty

    def batches(self, position: Position, world: World) -> Generator[tuple[PlannedStep, Batch], None, None]:
        """Yield each planned step with this process's clips, read ahead by the loader's workers."""
        plans = plan_steps(
            self.schedule.order,
            max_distance_at=self.schedule.distances.at,
            start=position,
            rank=world.rank,
            processes=world.size,
        )
        return read_batches(self.dataset, plans, workers=self.workers, pin_memory=self.learner.device.type == "cuda")

    def learn(self, plan: PlannedStep, batch: Batch, world: World) -> StepResult:
        """One update from a step's clips.

        Raises:
            HicoError: the clips cannot be read, or their loss is not a number.

        """
        config, learner, lr = self.config, self.learner, self.schedule.rates.at(plan.epoch)
        augment, size = config.augment, config.data.crop_size
        clips = augmented_clips(
            batch, size=size, mean=augment.channel_means, std=augment.channel_stds, device=learner.device
        )
        seed_layers(seed=config.train.seed, step=plan.position.step, rank=world.rank)
        by_video = clips.unflatten(0, (len(batch.video_ids), -1))  # (B, K, 3, T, H, W)
        result = train_step(learner, by_video, loss=config.loss, lr=lr, world=world)
        if result is None:
            raise HicoError(
                f"the loss is not finite at step {plan.position.step + 1}, learning rate {lr:.4g}; "
                f"the clips: {describe_batch(batch)}"
            )
        return result

    def knn_accuracy(self, world: World, stop: StopRequest) -> float | None:
        """Accuracy of nearest neighbours on the labelled list; each process reads its part.

        None without a list, and in all processes but the first, which alone does the comparison.

        Raises:
            Interrupted: a signal asked one of the processes to end.

        """
        if not self.listed:
            return None
        data, learner = self.config.data, self.learner
        found = LabelledFeatures(torch.empty(0, 0), [])
        with suppress(Interrupted), stop.may_interrupt():  # and then the processes end together
            found = read_features(
                learner.model.backbone,
                self.listed[world.rank :: world.size],
                Views(1, data.num_frames, data.frame_stride, data.target_fps),
                picture_for(data, self.config.augment),
                precision=learner.precision,
                workers=self.workers,
            )
        end_if_asked(stop, world)
        together = [part for part in gather_to_first(found, world) if part.labels]
        if not world.is_first:
            return None
        features = torch.cat([part.features for part in together]) if together else torch.empty(0, 0)
        labels = torch.tensor([label for part in together for label in part.labels])
        return knn_accuracy(features, labels, k=self.config.eval.knn_neighbours)


def prepare(
    fitted: Fitted, *, device: torch.device, init_from: Path | None, world: World, joined: bool = True
) -> Pretraining:
    """Check and build all parts, so that every mistake is reported before any work is done.

    Args:
        fitted: the run's configuration and videos.
        device: of this process.
        init_from: see `pretrain`.
        world: this process among all that train together.
        joined: whether these processes are connected; if not, the model is this process's alone.

    Raises:
        HicoError: there are too few videos for the batch, or too little room for what the workers read ahead.

    """
    config, videos, data, train = fitted.config, fitted.videos, fitted.config.data, fitted.config.train
    workers = num_workers(data.workers, processes=world.local_size)
    require_decoder(data.decoder)
    require_wandb(train.wandb_project)
    require_enough(videos, batch_size=train.batch_size, processes=world.size)
    require_room_for_batches(
        data,
        config.augment,
        clips=train.batch_size // world.size * config.sampling.clips_per_video,
        largest_short_side=videos.largest_short_side,
        workers=workers,
        processes=world.local_size,
    )
    listed = _listed_videos(config.eval.knn_list, world, videos.cache)
    made = _model(config, init_from if world.is_first else None)  # the others get its weights with the replica
    learner = learner_of(
        made.model,
        partial(build_optimizer, optim=config.optim),
        device=device,
        world=world if joined else ALONE,
        precision=train.precision,
        recompute=train.recompute,
    )
    return Pretraining(
        config=config,
        videos=videos,
        note=fitted.note,
        dataset=ClipDataset(videos, data=data, sampling=config.sampling, augment=config.augment),
        learner=learner,
        feature_dim=made.feature_dim,
        start=made.start,
        schedule=schedule_of(config, num_videos=len(videos), processes=world.local_size),
        workers=workers,
        listed=listed,
    )


def _listed_videos(knn_list: str | None, world: World, cache: LocalCache) -> Sequence[Source]:
    """The videos for nearest neighbours; the first process reports those that cannot be used."""
    if knn_list is None:
        return ()
    place = locate(knn_list)
    listed = labelled_videos(place, data_root=place.parent)
    for video in listed if world.is_first else ():
        if video.obstacle:
            logger.warning("left out of the nearest neighbours: %s: %s", video.path, video.obstacle)
    return [video.read_through(cache) for video in listed if not video.obstacle]


class _Made(NamedTuple):
    """A model, and what is known about its encoder."""

    model: HicoModel
    feature_dim: int
    start: WarmStart | None


def _model(config: Config, init_from: Path | None) -> _Made:
    """The model of a recipe with its initial weights."""
    torch.manual_seed(config.train.seed)
    encoder, start = first_encoder(config, init_from)
    data, loss = config.data, config.loss
    width = feature_dim(encoder, name=config.model.encoder, num_frames=data.num_frames, size=data.crop_size)
    model = with_heads(encoder, width, topical=loss.name == "hico" and loss.topical_weight > 0)
    if config.train.recompute:
        recompute_units(encoder)
    if config.train.compile:
        encoder.compile()
    return _Made(model, width, start)


def first_encoder(config: Config, init_from: Path | None) -> tuple[nn.Module, WarmStart | None]:
    """The encoder with which a run starts, initialised with PyTorch's random numbers, and what it takes from a file.

    Raises:
        UsageError: the file says that its encoder has other batch norms.
        HicoError: the file does not fit.

    """
    encoder = build_encoder(config.model)
    if init_from is None:
        return encoder, None
    file = read_checkpoint(init_from)
    start = warm_start(file, encoder, name=config.model.encoder)
    if says_its_encoder(file) and (trained_with := model_of(file).norm_eps) != config.model.norm_eps:
        raise UsageError(
            f"{init_from}: was trained with another epsilon of its batch norms; add "
            f"-o {as_override('model.norm_eps', trained_with)}"
        )
    encoder.load_state_dict(start.weights)
    return encoder, start


def _report_beginning(parts: Pretraining, entered: Entered, *, init_from: Path | None) -> None:
    """Log, in the first process, what is unusual about a run's videos and encoder."""
    if not entered.world.is_first:
        return
    if parts.videos.left_out:
        logger.warning(parts.videos.left_out)
    if init_from is not None and entered.checkpoint is not None:
        logger.warning("%s is not loaded: the run continues from its last checkpoint", init_from)
    elif init_from is not None:
        logger.warning(
            "starting from the encoder of %s: %s; heads and optimiser start from scratch", init_from, parts.start
        )


def _step(
    plan: PlannedStep, batch: Batch, parts: Pretraining, training: Training[Config, HicoModel], world: World
) -> StepMetrics:
    """One update, and its measurements.

    Raises:
        HicoError: its clips cannot be read, or its loss is not a number.
        Interrupted: a signal ended the run during the measurement of the weights; a checkpoint was written.

    """
    is_first = training.progress.last_step_epoch is None
    knn_due = is_first or training.ends_epoch(plan, every=parts.config.eval.knn_epochs)
    knn = training.measure(lambda stop: parts.knn_accuracy(world, stop)) if knn_due else None
    result = parts.learn(plan, batch, world)
    if is_first and parts.note and world.is_first:  # only now that nothing else is wrong
        logger.warning(parts.note)
    return StepMetrics(
        step=plan.position.step + 1,
        epoch=plan.epoch,
        loss=result.whole_loss,
        visual=float(result.loss.visual),
        topical=None if result.loss.topical is None else float(result.loss.topical),
        lr=parts.schedule.rates.at(plan.epoch),
        distance=plan.max_distance_seconds,
        **training.times(world.size * len(batch.draws))._asdict(),
        bad_videos=len(training.bad_videos),
        skipped_steps=parts.learner.scaling.skipped_steps,
        embedding_std=result.embedding_std,
        effective_rank=result.effective_rank,
        knn_accuracy=knn,
    )
