"""One training run, from where it stands to its end: what pretraining and finetuning have in common.

A training asks for `Run.steps` and does the update of each; the run knows the position, signals, checkpoints, bad
videos, the log and the time, and leaves everything on the disk from which it goes on exactly.
"""

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn

from hico_core.config import Config, FinetuneConfig
from hico_core.data.batches import Batch
from hico_core.data.dataset import UnusableVideo
from hico_core.data.plan import PlannedStep, TrainingOrder, position_at
from hico_core.data.videos import IndexIdentity
from hico_core.errors import HicoError, Interrupted, UsageError, counted
from hico_core.training.checkpoint import (
    BEST,
    LAST,
    Content,
    Progress,
    checkpoint_of,
    read_last,
    restore,
    write_bytes,
    write_of_run,
)
from hico_core.training.distributed import World, from_first, gather_objects, joined_world, largest, own_device
from hico_core.training.hardware import DeviceName, choose_device, telling_full_memory
from hico_core.training.log import RunLog
from hico_core.training.run_folder import CHANGEABLE_ON_RESUME, opened_run, write_config
from hico_core.training.schedule import learning_rate
from hico_core.training.stopping import StopRequest

logger = logging.getLogger(__name__)

# Losses of single steps jump about; a run's summary compares means.
_LOSSES_IN_A_MEAN = 10

# Settings that change how a run is carried out, not what comes out of it: free to differ on resuming.
FREE_ON_RESUME = {
    *("data.workers", "data.cache_dir", "data.cache_gb", "data.decoder", "data.max_bad_fraction"),
    *("train.max_steps", "train.checkpoint_seconds"),
}


class Learner(NamedTuple):
    """What a run changes and saves."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device


class Step(NamedTuple):
    """A step that is about to be done."""

    number: int  # from 1
    plan: PlannedStep
    batch: Batch
    last_epoch: float | None  # passes over the videos that were done before the step before; None at the first one
    newly_bad: list[UnusableVideo]  # videos that another one stands in for, for the first time

    def ends_epoch(self, every: int) -> int | None:
        """See `kept_epoch`."""
        return None if self.last_epoch is None else kept_epoch(self.last_epoch, self.plan.epoch, every=every)


class StepTimes(NamedTuple):
    """How long a step took."""

    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included


def kept_epoch(before: float, now: float, *, every: int) -> int | None:
    """The epoch whose end was passed between two steps, if it is one to keep a checkpoint of.

    before 9.8, now 10.1, every 10  ->  10
    """
    last = int(now) // every * every
    return last if last > before else None


class Entered(NamedTuple):
    """What a training finds when it begins or goes on."""

    world: World
    device: torch.device  # of this process
    checkpoint: Content | None  # the run's last one


@contextmanager
def entered_run(
    run_dir: Path,
    config: Config | FinetuneConfig,
    device: DeviceName,
    *,
    resume: bool,
    allow_changed: bool,
    free: Collection[str],
) -> Iterator[Entered]:
    """Join the other processes, keep all others out of the run's folder, and read its last checkpoint.

    One process reads it and sends it to all: the others may not see the folder, or see an older state of it.

    Args:
        run_dir: the run's folder.
        config: of the run.
        device: where to train.
        resume: go on with an old run.
        allow_changed: see `go_on_from`.
        free: settings that may differ on resuming; see `opened_run`.

    Raises:
        HicoError: the processes do not find each other, the folder is of another run or in use, its checkpoints
            cannot be read, or a step does not fit into memory.

    """
    chosen = choose_device(device)
    with joined_world(chosen) as world, ExitStack() as stack:
        checkpoint = None
        if world.is_first:
            changeable = CHANGEABLE_ON_RESUME if allow_changed else {}
            stack.enter_context(opened_run(run_dir, config, resume=resume, free=free, changeable=changeable))
            checkpoint = read_last(run_dir / "checkpoints")
        own = own_device(chosen, world)
        with telling_full_memory(config.train.batch_size // world.size, own):
            yield Entered(world, own, from_first(checkpoint, world))


def go_on_from(
    checkpoint: Content | None,
    learner: Learner,
    *,
    config: Config | FinetuneConfig,
    index: IndexIdentity,
    world: World,
    run_dir: Path,
    allow_changed: bool,
) -> Progress:
    """Put a run's checkpoint in place, and find where it goes on; without one, at the beginning.

    Where the videos, their number in a step or the epochs have changed, that is after as many passes over them as
    were done, with the schedule of a run that had been planned so.

    Raises:
        UsageError: something has changed that the result depends on, and `allow_changed` is not given, or more
            epochs are done than there are to be.
        HicoError: the checkpoint is of another model, or the processes read different indexes.

    """
    _require_one_index(index, world)
    if checkpoint is None:
        return Progress(index=index, world_size=world.size)
    before = checkpoint.progress
    restore(checkpoint, model=learner.model, optimizer=learner.optimizer, origin=run_dir / "checkpoints" / LAST)
    if before.world_size != world.size:
        changed = f"{run_dir}: this run had {before.world_size} processes and has {world.size} now"
        if not allow_changed:
            raise UsageError(f"{changed}; give it as many as before, or --allow-changed")
        logger.warning("%s: pairs of the topical term and batch order differ from here on", changed)
    other_videos = before.index.changes_to(index) if before.index else None
    if other_videos:
        changed = f"{run_dir}: the index is not that of the last checkpoint: {other_videos}"
        if not allow_changed:
            raise UsageError(f"{changed}; go on with them with --allow-changed, or give another --name")
        logger.warning("%s; going on with them after %.2f epochs", changed, before.epochs_done)
    position, planned = before.position, checkpoint.config["train"]
    if planned["epochs"] != config.train.epochs:
        told = _new_schedule(planned["epochs"], config, epochs_done=before.epochs_done, run_dir=run_dir)
        if world.is_first:
            logger.warning("%s: %s", run_dir, told)
    if other_videos or any(planned[key] != getattr(config.train, key) for key in ("batch_size", "epochs")):
        position = position_at(
            before.epochs_done,
            step=position.step,
            order=TrainingOrder(
                num_videos=index.num_videos,
                batch_size=config.train.batch_size,
                epochs=config.train.epochs,
                epochs_per_round=config.data.epochs_per_round,
                seed=config.train.seed,
            ),
        )
    return before.model_copy(update={"position": position, "world_size": world.size, "index": index})


def _new_schedule(planned: int, config: Config | FinetuneConfig, *, epochs_done: float, run_dir: Path) -> str:
    """In words: how the learning rate of a run goes on that is to last for other epochs than were planned.

    Raises:
        UsageError: it has lasted for longer already.

    """
    epochs, warmup = config.train.epochs, config.optim.warmup_epochs
    if epochs < epochs_done:
        raise UsageError(f"{run_dir}: {epochs_done:.4g} epochs are done already; --epochs {epochs} are fewer")
    part = learning_rate(epochs_done, peak=1.0, start=0.0, warmup_epochs=warmup, total_epochs=epochs)
    return (
        f"was planned for {counted(planned, 'epoch')} and is for {epochs} now: after {epochs_done:.4g}, it goes on "
        f"with the schedule of a run of {epochs}, the learning rate at {part:.0%} of its peak (warm-up until "
        f"{warmup:.4g}, then a cosine to 0)"
    )


def _require_one_index(index: IndexIdentity, world: World) -> None:
    """Check that all processes read the same videos."""
    for rank, other in enumerate(gather_objects(index, world)):
        changes = index.changes_to(other)
        if changes:
            raise HicoError(
                f"the training processes read different indexes (from process {world.rank} to {rank}, {changes}); "
                "give all machines the same --root"
            )


class Run:
    """A run in its folder. Only the first process writes; all make the same decisions."""

    def __init__(
        self,
        run_dir: Path,
        learner: Learner,
        progress: Progress,
        *,
        config: Config | FinetuneConfig,
        world: World,
        stop: StopRequest,
        keep_every: int | None = None,
        wandb_project: str | None = None,
        exports: Callable[[Progress, float | None], Mapping[Path, bytes]] = lambda progress, loss: {},
    ) -> None:
        """Begin, or go on.

        Args:
            run_dir: from `opened_run`.
            learner: what is saved.
            progress: where the run stands.
            config: is written down.
            world: this process among all.
            stop: asks for the end.
            keep_every: keep a checkpoint every so many epochs, besides the last one.
            wandb_project: see `RunLog`.
            exports: progress, mean loss of this call's last steps -> files that are written with the checkpoints.

        """
        self.run_dir, self.progress = run_dir, progress
        self.bad_videos = dict.fromkeys(progress.bad_videos, "found before resuming")
        self.losses: list[float] = []  # of the steps of this call
        self._learner, self._config, self._world, self._stop = learner, config, world, stop
        self._keep_every, self._exports = keep_every, exports
        self._log: RunLog | None = None
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None
        self._step_began = self._got_data = time.monotonic()
        if world.is_first:
            write_config(run_dir, config)
            self._log = RunLog(run_dir, keep_steps=progress.position.step, wandb_project=wandb_project)

    def steps(self, batches: Generator[tuple[PlannedStep, Batch], None, None]) -> Iterator[Step]:
        """Each step that is to be done; when the next one is asked for, it counts as done.

        Raises:
            HicoError: too many videos cannot be decoded, or a checkpoint cannot be written.
            Interrupted: a signal ended the run; a checkpoint is written.

        """
        train, first_step = self._config.train, self.progress.position.step
        finished = True
        saved_at = self._step_began = time.monotonic()
        with closing(batches):
            for plan, batch in self._arriving(batches):
                self._got_data = time.monotonic()
                self._note(epochs_done=plan.epoch)
                if self._writing is not None and self._writing.done():
                    self.finish_writing()
                # What the processes may see differently, they decide together.
                since_saved, signal_number, num_unusable = largest(
                    [self._got_data - saved_at, float(self._stop.signal_number or 0), float(len(batch.unusable))],
                    self._world,
                )
                step = Step(plan.position.step + 1, plan, batch, self.progress.last_step_epoch, [])
                kept = step.ends_epoch(self._keep_every) if self._keep_every else None
                if kept or (plan.position.step > first_step and since_saved >= train.checkpoint_seconds):
                    self.save(*([f"epoch_{kept:04d}.pt"] if kept else []), LAST)
                    saved_at = time.monotonic()
                if signal_number:
                    self._end_by_signal(int(signal_number))
                if train.max_steps is not None and plan.position.step >= train.max_steps:
                    finished = False
                    break
                yield step._replace(newly_bad=self._newly_bad(batch) if num_unusable else [])
                self._note(position=plan.position.after_step(), last_step_epoch=plan.epoch)
                self._step_began = time.monotonic()
        if finished:
            self._note(epochs_done=float(train.epochs))
        kept_last = [f"epoch_{train.epochs:04d}.pt"] if finished and self._keep_every else []
        self.save(*kept_last, LAST)
        self.finish_writing()

    def _arriving(
        self, batches: Generator[tuple[PlannedStep, Batch], None, None]
    ) -> Iterator[tuple[PlannedStep, Batch]]:
        while True:
            try:
                with self._stop.may_interrupt():
                    arrived = next(batches, None)
            except Interrupted as interrupted:
                self._end_by_signal(interrupted.exit_code - 128)
            if arrived is None:
                return
            yield arrived

    def _end_by_signal(self, number: int) -> None:
        self.save(LAST)
        self.finish_writing()
        step = self.progress.position.step
        raise Interrupted(number, f"stopped after step {step}; the same command with --resume goes on")

    def _newly_bad(self, batch: Batch) -> list[UnusableVideo]:
        """The videos of all processes' shares that are found to be bad only now.

        Raises:
            HicoError: they are too many.

        """
        found = chain.from_iterable(gather_objects(batch.unusable, self._world))
        new = [bad for bad in found if bad.video_id not in self.bad_videos]
        self.bad_videos |= {bad.video_id: bad.reason for bad in new}
        num_videos = self.progress.index.num_videos if self.progress.index else 0
        check_bad_videos(self.bad_videos, num_videos, self._config.data.max_bad_fraction)
        return list({bad.video_id: bad for bad in new}.values())

    def _note(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Progress
        self.progress = self.progress.model_copy(update=changes)

    def note_best(self, accuracy: float) -> None:
        """Keep the weights as they are now as the best ones so far, if they are."""
        best = self.progress.best_accuracy
        if best is None or accuracy > best:
            self._note(best_accuracy=accuracy)
            self.save(BEST)

    def times(self, num_clips: int) -> StepTimes:
        """How long the present step has taken, which had so many clips in all processes."""
        whole = time.monotonic() - self._step_began
        return StepTimes(num_clips / whole, self._got_data - self._step_began, whole)

    def write(self, step: Step, loss: float, fields: Mapping[str, float | None]) -> None:
        """Write a step's line of the log, with its loss and, among others, what `times` gave."""
        self.losses.append(loss)
        if self._log is not None:
            self._log.write(step.number, fields)

    def save(self, *names: str) -> None:
        """Write checkpoints of these names, and what is exported with them, as they are now, while training goes on.

        Raises:
            HicoError: the ones before could not be written.

        """
        if not self._world.is_first:
            return
        self.finish_writing()
        checkpoint = checkpoint_of(
            model=self._learner.model,
            optimizer=self._learner.optimizer,
            progress=self.progress.model_copy(update={"bad_videos": list(self.bad_videos)}),
            config=self._config.model_dump(mode="json"),
        )
        paths = [self.run_dir / "checkpoints" / name for name in names]
        exports = self._exports(self.progress, self.last_loss)
        self._writing = self._writer.submit(_write, paths, checkpoint, exports)

    def finish_writing(self) -> None:
        """Wait until the checkpoints are on the disk.

        Raises:
            HicoError: they are not.

        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Finish what is being written, and close the log.

        Where that fails, training has failed before, of which the error tells; so this is only a warning.
        """
        self._writer.shutdown()
        error = self._writing.exception() if self._writing is not None else None
        if error is not None:
            logger.warning("%s", error)
        if self._log is not None:
            self._log.close()

    @property
    def steps_done(self) -> int:
        """Of the whole run."""
        return self.progress.position.step

    @property
    def first_loss(self) -> float | None:
        """Mean loss of this call's first steps; None if it had nothing left to do."""
        return fmean(self.losses[:_LOSSES_IN_A_MEAN]) if self.losses else None

    @property
    def last_loss(self) -> float | None:
        """Mean loss of its last steps."""
        return fmean(self.losses[-_LOSSES_IN_A_MEAN:]) if self.losses else None


def _write(paths: Sequence[Path], checkpoint: memoryview, exports: Mapping[Path, bytes]) -> None:
    """Write a checkpoint under some names, and other files."""
    for path in paths:
        write_of_run(path, checkpoint)
    for path, content in exports.items():
        write_bytes(path, content)


def check_bad_videos(bad: dict[str, str], num_videos: int, allowed: float) -> None:
    """End the run when too many videos cannot be decoded.

    Raises:
        HicoError: names the last one.

    """
    if len(bad) > allowed * num_videos:
        video_id, reason = list(bad.items())[-1]
        raise HicoError(
            f"{len(bad)} of {num_videos} videos cannot be decoded, more than data.max_bad_fraction={allowed}; "
            f"the last one is {video_id} ({reason}); mend or remove them, or allow more with "
            f"-o data.max_bad_fraction={min(1.0, 2 * len(bad) / num_videos):.2g}"
        )
