"""Where a run continues from its last checkpoint, if nothing has changed that it depends on."""

import logging

from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.checkpoints.content import LAST, Content, Progress, restore
from hico_core.config import Config, FinetuneConfig
from hico_core.data.plan import position_at
from hico_core.data.videos import IndexIdentity
from hico_core.training.distributed import World, gather_objects
from hico_core.training.learner import Learner, Model
from hico_core.training.schedule import learning_rate, order_of
from hico_core.training.task import Settings, Task

logger = logging.getLogger(__name__)


def go_on_from(
    checkpoint: Content, learner: Learner[Model], task: Task[Settings], *, index: IndexIdentity, world: World
) -> Progress:
    """Load a run's checkpoint, and find where the run continues.

    If the videos, the batch size or the epochs have changed, the run continues after the same number of passes over the
    videos, with the schedule that it would have had if it had been planned that way.

    Raises:
        UsageError: something has changed that affects the result, and the task does not allow it, or more epochs are
            done than the run is to have.
        HicoError: the checkpoint is of another model.

    """
    last = task.run_dir / "checkpoints" / LAST
    restore(checkpoint, model=learner.model, optimizer=learner.optimizer, origin=last)
    learner.scaling.load_state_dict(checkpoint.scaling)
    before, config = checkpoint.progress, task.config
    _require_processes(before.world_size, world, task)
    other_videos = _other_videos(before, index, task, world)
    planned, position = checkpoint.config["train"], before.position
    if planned["epochs"] != config.train.epochs:
        schedule = _describe_schedule(planned["epochs"], before.epochs_done, task)
        if world.is_first:
            logger.warning("%s: %s", task.run_dir, schedule)
    if other_videos or any(planned[key] != getattr(config.train, key) for key in ("batch_size", "epochs")):
        order = order_of(config, num_videos=index.num_videos)
        position = position_at(before.epochs_done, step=position.step, order=order)
    return before.model_copy(update={"position": position, "world_size": world.size, "index": index})


def _require_processes(before: int | None, world: World, task: Task[Settings]) -> None:
    if before is None or before == world.size:
        return
    changed = f"{task.run_dir}: this run had {counted(before, 'process')} and has {world.size} now"
    if not task.allow_changed:
        raise UsageError(f"{changed}; use as many as before, or add --allow-changed")
    if world.is_first:
        logger.warning("%s: pairs of the topical term and batch order differ from here on", changed)


def _other_videos(before: Progress, index: IndexIdentity, task: Task[Settings], world: World) -> bool:
    """Whether the videos differ from those of a checkpoint, which the task must allow."""
    changes = before.index.changes_to(index) if before.index else None
    if changes is None:
        return False
    changed = f"{task.run_dir}: the index has changed since the last checkpoint: {changes}"
    if not task.allow_changed:
        raise UsageError(f"{changed}; continue with --allow-changed, or use another --name")
    if world.is_first:
        logger.warning("%s; continuing with the new index after %.2f epochs", changed, before.epochs_done)
    return True


def _describe_schedule(planned: int, epochs_done: float, task: Task[Settings]) -> str:
    """Describe how the learning rate continues in a run whose number of epochs has changed.

    Raises:
        UsageError: the run has already lasted longer.

    """
    config: Config | FinetuneConfig = task.config
    epochs, warmup = config.train.epochs, config.optim.warmup_epochs
    if epochs < epochs_done:
        raise UsageError(f"{task.run_dir}: {epochs_done:.4g} epochs are already done, more than --epochs {epochs}")
    part = learning_rate(epochs_done, peak=1.0, start=0.0, warmup_epochs=warmup, total_epochs=epochs)
    return (
        f"was planned for {counted(planned, 'epoch')} and now lasts {epochs}: after {epochs_done:.4g}, it continues "
        f"with the schedule of a run of {epochs}, the learning rate at {part:.0%} of its peak (warm-up until "
        f"{warmup:.4g}, then a cosine to 0)"
    )


def require_one_index(index: IndexIdentity, world: World) -> None:
    """Check that all processes read the same videos.

    Raises:
        HicoError: they read different indexes.

    """
    for rank, other in enumerate(gather_objects(index, world)):
        changes = index.changes_to(other)
        if changes:
            raise HicoError(
                f"the training processes read different indexes (from process {world.rank} to {rank}, {changes}); "
                "give all machines the same --root"
            )
