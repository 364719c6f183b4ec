"""Messages that commands print during training, and after splitting, indexing, pretraining or extraction."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from itertools import starmap
from typing import TYPE_CHECKING, Any

from hico_cli.console import noting_signals, progress, report_failed, result, warn
from hico_core.base.addresses import quoted
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.base.addresses import Location
    from hico_core.base.tally import Summary
    from hico_core.config import Config, FinetuneConfig
    from hico_core.corpus.index import IndexSummary
    from hico_core.encoding.encoder import Meter
    from hico_core.training.dry_run import DryRun
    from hico_core.training.log import StepMetrics
    from hico_core.training.loop import RunSummary
    from hico_core.training.task import Settings, Task, Watch
    from hico_core.transfer.finetuning.dry_run import FinetuneDryRun
    from hico_core.transfer.finetuning.train import FinetuneSummary


# Units, the largest first.
_BYTES = {"GB": 1e9, "MB": 1e6, "KB": 1e3}
_HOURS = {"hours": 1.0, "minutes": 1 / 60, "seconds": 1 / 3600}


def report_split(summary: "Summary", *, root: str, folder: str, as_json: bool) -> None:
    """Report how splitting the videos ended."""
    part = "clip" if summary.num_parts else "new clip"  # some clips may have existed before
    text = (
        f"{counted(summary.num_done, 'video')} split, {summary.num_unchanged} unchanged, {summary.num_failed} failed; "
        f"{counted(summary.num_parts, part)} in {folder}"
    )
    names = {"num_done": "num_split", "num_parts": "num_clips"}
    fields = {names.get(name, name): value for name, value in asdict(summary).items()}
    result(text, {**fields, "folder": folder}, as_json=as_json)
    if summary.num_failed:
        again = " earlier (`hico split --retry-failed` tries them again)"
        before = f", {summary.num_failed_before}{again}" if summary.num_failed_before else ""
        warn(f"{counted(summary.num_failed, 'video')} failed{before}; see {root}/failures.jsonl")


def report_index(summary: "IndexSummary", *, root: str, as_json: bool) -> None:
    """Report what went into an index, and what did not."""
    left_out = f"; {counted(summary.num_failed, 'failed video')} left out" if summary.num_failed else ""
    left_out += f"; {summary.left_out}" if summary.left_out else ""
    if summary.num_missing:
        left_out += f"; {counted(summary.num_missing, 'missing clip')} left out"
    subsets = ", ".join(f"{count} {subset}" for subset, count in sorted(summary.videos_of.items()))
    shared = f" ({subsets})" if len(summary.videos_of) > 1 else ""
    sizes = f"{counted(summary.num_clips, 'clip')} of {counted(summary.num_videos, 'video')}"
    text = f"{sizes}{shared} in {root}/index.parquet{left_out}"
    result(text, {**asdict(summary), "index": f"{root}/index.parquet"}, as_json=as_json)


def report_dry_run(config: "Config | FinetuneConfig", found: "DryRun | FinetuneDryRun", *, as_json: bool) -> None:
    """Print a run's whole configuration, and the measurements of its dry run."""
    from hico_core.config import dump_config

    sizes = asdict(found)
    sizes |= sizes.pop("measured")
    sizes["precision"] = f"{found.measured.precision.name} ({found.measured.precision.reason})"
    text = dump_config(config) + "\n" + "\n".join(starmap(describe_measurement, sizes.items()))
    result(text, {"config": config.model_dump(mode="json"), **sizes}, as_json=as_json)


def describe_measurement(key: str, value: object) -> str:
    """A measurement in units for people: hours 0.3787 -> "time: 22.7 minutes"; batch_bytes 1500 -> "batch: 1.5 KB"."""
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{key.removesuffix('_bytes')}: {_in_units(value, _BYTES)}"
    if key.endswith("hours") and isinstance(value, float):
        return f"{key.removesuffix('hours')}time: {_in_units(value, _HOURS)}"
    return f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"


def _in_units(value: float, units: dict[str, float]) -> str:
    """A value in the largest unit of which it is at least one, otherwise in the smallest."""
    name, size = next((unit for unit in units.items() if value >= unit[1]), list(units.items())[-1])
    return f"{value / size:.1f} {name}"


@contextmanager
def watched_training(
    title: str, describe: Callable[[Any, int], str], *, epochs: int, bad_video: str, as_json: bool
) -> "Iterator[Watch]":
    """Report on a training, which Ctrl-C and SIGTERM end between two steps.

    Args:
        title: of the progress.
        describe: (a step's metrics, the number of epochs) -> a description of the step.
        epochs: number of epochs of the training.
        bad_video: message for a video that cannot be read, with a placeholder for its id.
        as_json: print JSON lines for programs.

    """
    from hico_core.training.task import Watch

    with noting_signals() as stop, progress(title, total=epochs, as_json=as_json, every_line=True) as report:
        yield Watch(
            on_step=lambda metrics: report(metrics.epoch, describe(metrics, epochs), asdict(metrics)),
            on_bad_video=lambda video_id, reason: warn(f"{bad_video.format(video_id)}: {reason}"),
            on_tested=lambda done, of: report(epochs, f"tested {done}/{of} videos", {"tested": done, "of": of}),
            stop=stop,
        )


def watched_pretraining(title: str, *, epochs: int, as_json: bool) -> "AbstractContextManager[Watch]":
    """Report on a pretraining in the same way."""
    bad_video = "{} is replaced by another video"
    return watched_training(title, describe_step, epochs=epochs, bad_video=bad_video, as_json=as_json)


def describe_step(metrics: "StepMetrics", epochs: int) -> str:
    """Describe a step of pretraining."""
    from hico_core.training.log import part_waiting

    parts = "" if metrics.topical is None else f" (visual {metrics.visual:.4f} topical {metrics.topical:.4f})"
    knn = "" if metrics.knn_accuracy is None else f" kNN {metrics.knn_accuracy:.1%}"
    return (
        f"step {metrics.step} epoch {metrics.epoch:.2f}/{epochs} loss {metrics.loss:.4f}{parts} lr {metrics.lr:.4f} "
        f"{metrics.clips_per_second:.1f} clips/s waiting {part_waiting(asdict(metrics)):.0%}{knn}"
    )


def report_pretraining(summary: "RunSummary", *, as_json: bool) -> None:
    """Report how a run ended; a collapse is a warning."""
    losses = ""
    if summary.first_loss is not None:
        losses = f", mean loss of the first steps {summary.first_loss:.4f}, of the last {summary.last_loss:.4f}"
        if summary.first_loss == summary.last_loss:  # too few steps for two different means
            losses = f", mean loss {summary.first_loss:.4f}"
    knn = "" if summary.knn_accuracy is None else f", kNN accuracy {summary.knn_accuracy:.1%}"
    how = f"{counted(summary.num_steps, 'step')} in {summary.precision.name} ({summary.precision.reason})"
    fields = {**asdict(summary), "run_dir": str(summary.run_dir), "encoder": str(summary.encoder)}
    fields["precision"] = summary.precision.name
    result(f"{how}{losses}{knn}; the encoder is {summary.encoder}", fields, as_json=as_json)
    if summary.collapsed:
        warn(
            f"after {counted(summary.num_steps, 'step')}, all clips still get nearly the same embedding, so "
            "features of this encoder will hardly tell videos apart; train for longer or, if the spread of the "
            f"embeddings fell during training (`hico report {quoted(summary.run_dir)}`), with a lower optim.base_lr"
        )


def tell_if_finished(task: "Task[Settings]", summary: "RunSummary | FinetuneSummary") -> None:
    """Say so if a run had nothing left to do, and how it trains for longer."""
    if summary.first_loss is None:
        limit = task.config.train.max_steps
        longer = "--epochs N --allow-changed" if limit is None or summary.num_steps < limit else "--max-steps N"
        done = counted(summary.num_steps, "step")
        warn(f"{summary.run_dir}: already finished after {done}; to train for longer: {longer}")


def extraction_fields(summary: "Summary", meter: "Meter") -> dict[str, Any]:
    """Outcome and speed of an extraction, as fields for programs."""
    return {
        "num_extracted": summary.num_done,
        "num_unchanged": summary.num_unchanged,
        "num_failed": summary.num_failed,
        "num_rows": summary.num_parts,
        "rows_per_second": meter.rows_per_second,
        "waiting": meter.waiting_part,
    }


def describe_speed(meter: "Meter") -> str:
    """Describe how fast windows are encoded; empty if none was."""
    return "" if not meter.num_rows else f"{meter.rows_per_second:.1f} rows/s, {meter.waiting_part:.0%} waiting"


def report_extraction(fields: dict[str, Any], folder: "Location", *, root: str, as_json: bool) -> None:
    """Report the outcome of an extraction from `extraction_fields`, of one process or of several together."""
    text = (
        f"{counted(fields['num_extracted'], 'video')} extracted, {fields['num_unchanged']} unchanged, "
        f"{fields['num_failed']} failed; the features are in {folder}"
    )
    result(text, {**fields, "manifest": str(folder / "manifest.jsonl")}, as_json=as_json)
    report_failed(fields["num_failed"], root=root)
