"""Facts about runs and workspaces that need no model; missing and half-written parts are left out and reported."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError, UsageError
from hico_core.base.failures import FailureLine, read_failures
from hico_core.base.files import read_json_lines
from hico_core.config import read_yaml_file
from hico_core.corpus.index import read_index_table
from hico_core.report.results import Results, is_number, read_results
from hico_core.report.road_times import RoadTimes, read_road_times
from hico_core.training.started import Started, read_started

# A curve has no more points than a screen can show.
_MOST_POINTS = 600


# Number of picture sizes listed in a summary.
_SIZES_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """The content of a workspace."""

    root: Location
    videos_of: dict[str, int]  # number of videos by subset
    num_clips: int
    num_bytes: int
    durations: np.ndarray  # seconds, of each video
    rates: np.ndarray  # frames per second, of each video
    sizes: list[tuple[str, int]]  # such as 320 x 240, and the number of videos; the most frequent first
    failures: list[FailureLine]
    labels: dict[str, int]  # class of each labelled video
    shots_per_minute: float | None  # over the clips with known cuts; None: no clip has them

    @property
    def hours(self) -> float:
        """Total length of all videos."""
        return float(self.durations.sum() / 3600)

    def summary(self) -> dict[str, str]:
        """The facts in a few lines."""
        shortest, median, longest = np.quantile(self.durations, [0, 0.5, 1])
        slowest, usual, fastest = np.quantile(self.rates, [0, 0.5, 1])
        sizes = ", ".join(f"{size}: {count}" for size, count in self.sizes[:_SIZES_NAMED])
        others = sum(count for _, count in self.sizes[_SIZES_NAMED:])
        return {
            "videos": ", ".join(f"{count} {subset}" for subset, count in sorted(self.videos_of.items())),
            "clips": f"{self.num_clips}",
            "hours": f"{self.hours:.2f}",
            "GB": f"{self.num_bytes / 1e9:.3f}",
            "length of a video, seconds": f"{shortest:.1f} to {longest:.1f}, median {median:.1f}",
            "frames per second": f"{slowest:.4g} to {fastest:.4g}, median {usual:.4g}",
            "width x height, pixels": sizes + (f", others: {others}" if others else ""),
            "shots per minute": "not known" if self.shots_per_minute is None else f"{self.shots_per_minute:.1f}",
            "with labels": f"{len(self.labels)}",
            "failed": f"{len(self.failures)}",
        }


def read_corpus(root: Location) -> CorpusFacts:
    """Read a workspace's index and failures.

    Raises:
        HicoError: the index is missing or damaged.

    """
    columns = ["video_id", "clip_index", "num_clips", "subset", "start_seconds", "end_seconds", "fps"]
    table = read_index_table(root, columns=[*columns, "width", "height", "size_bytes", "label", "path", "cuts"])
    starts = np.flatnonzero(table["clip_index"].to_numpy() == 0)
    lasts = np.append(starts[1:], len(table)).astype(np.int64)[: len(starts)] - 1
    first = table.take(starts)
    # A video that is read in place has many rows with the same file.
    files = dict(zip(table["path"].to_pylist(), table["size_bytes"].to_pylist(), strict=True))
    sizes = Counter(zip(first["width"].to_pylist(), first["height"].to_pylist(), strict=True))
    labelled = first.filter(pc.is_valid(first["label"]))
    return CorpusFacts(
        root=root,
        videos_of=dict(Counter(first["subset"].to_pylist())),
        num_clips=len(table),
        num_bytes=sum(files.values()),
        durations=table["end_seconds"].to_numpy()[lasts],
        rates=first["fps"].to_numpy(),
        sizes=[(f"{width} x {height}", count) for (width, height), count in sizes.most_common()],
        failures=read_failures(root),
        labels=dict(zip(labelled["video_id"].to_pylist(), labelled["label"].to_pylist(), strict=True)),
        shots_per_minute=_shots_per_minute(table.filter(pc.is_valid(table["cuts"]))),
    )


def _shots_per_minute(clips: pa.Table) -> float | None:
    """Shots per minute in clips with known cuts; the beginning of a video counts as a shot."""
    seconds = pc.sum(pc.subtract(clips["end_seconds"], clips["start_seconds"])).as_py()
    beginnings = pc.sum(pc.equal(clips["clip_index"], 0)).as_py()
    return 60 * (beginnings + pc.sum(pc.list_value_length(clips["cuts"])).as_py()) / seconds if seconds else None


class Curve(NamedTuple):
    """Values over the steps of a run, averaged over a few steps each if there are many."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The content of a run's folder."""

    name: str
    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]  # lines of metrics.jsonl
    num_unreadable: int  # lines that could not be read
    root: Path | None  # of its workspace; None if the run lies in none
    checkpoints: list[tuple[str, int]]  # names and bytes
    encoder: Path | None
    results: Results
    started: Started | None  # None if the run has no such record
    road: RoadTimes | None  # None if `hico run` did not make the run
    confusion: np.ndarray | None  # (true class, predicted class) counts of a finetuning's test

    @property
    def is_pretraining(self) -> bool:
        """Whether the run is a pretraining, not a finetuning."""
        return "sampling" in self.config

    @property
    def steps(self) -> int:
        """Number of steps trained."""
        return max((line["step"] for line in self.metrics), default=0)

    def total(self, field: str) -> float:
        """The sum of a field of the metrics over all steps, those of resumed parts included."""
        return sum(line[field] for line in self.metrics if is_number(line.get(field)))

    def curve(self, field: str) -> Curve | None:
        """A field of the metrics; None if no line has it."""
        found = [(line["step"], line[field]) for line in self.metrics if is_number(line.get(field))]
        if not found:
            return None
        steps, values = np.array(found, dtype=float).T
        return Curve(*(_means(column) for column in (steps, values)))


def _means(values: np.ndarray) -> np.ndarray:
    """Means of blocks of equal length, at most as many as a curve may have points."""
    parts = np.array_split(values, min(len(values), _MOST_POINTS))
    return np.array([part.mean() for part in parts])


def read_run(path: Path) -> RunFacts:
    """Read a run's folder, finished or not.

    Raises:
        UsageError: the folder is not a run's.
        HicoError: a file of results is damaged.

    """
    if not (path / "config.yaml").is_file():
        raise UsageError(
            f"{path}: neither a run (it has no config.yaml) nor a workspace (it has no index.parquet); "
            "name a folder in ROOT/runs, or ROOT itself"
        )
    config = read_yaml_file(path / "config.yaml")
    rows, num_unreadable = read_json_lines(path / "metrics.jsonl")
    metrics = [row for row in rows if is_number(row.get("step")) and row["step"] >= 1]
    workspace = path.absolute().parent.parent
    encoder = path / "export" / "encoder.safetensors"
    return RunFacts(
        name=path.absolute().name,
        path=path,
        config=config,
        metrics=metrics,
        num_unreadable=num_unreadable + len(rows) - len(metrics),
        root=workspace if (workspace / "index.parquet").is_file() else None,
        checkpoints=_sizes(sorted((path / "checkpoints").glob("*.pt"))),
        encoder=encoder if encoder.is_file() else None,
        results=read_results(path, workspace),
        started=read_started(path),
        road=read_road_times(path),
        confusion=_confusion(path / "predictions.csv"),
    )


def _sizes(files: Sequence[Path]) -> list[tuple[str, int]]:
    found = []
    for file in files:
        try:
            found.append((file.name, file.stat().st_size))
        except FileNotFoundError:  # the training is replacing the file right now
            continue
    return found


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, not a workspace."""
    return (path / "config.yaml").is_file() or not (path / "index.parquet").is_file()


def _confusion(path: Path) -> np.ndarray | None:
    """Counts by true and predicted class, from a finetuning's predictions.csv."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        pairs = [(int(row["label"]), int(row["predicted"])) for row in rows if row["predicted"]]
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, TypeError) as error:
        raise HicoError(f"{path}: is damaged; `hico finetune --resume` writes it again") from error
    if not pairs:
        return None
    size = max(max(pair) for pair in pairs) + 1
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, tuple(np.array(pairs).T), 1)
    return counts


def last_values(run: RunFacts, fields: Sequence[str]) -> dict[str, float | None]:
    """The mean of each field over the last ten steps that have it."""
    found = {}
    for field in fields:
        values = [line[field] for line in run.metrics if is_number(line.get(field))][-10:]
        found[field] = float(np.mean(values)) if values else None
    return found
