"""Measurements of a run's encoder: files of probes, retrieval, finetuning and evaluation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hico_core.base.errors import HicoError
from hico_core.transfer.evaluation.intervals import Estimate, in_context, percent, wilson_interval
from hico_core.transfer.evaluation.localisation_probe import LocalisationRow
from hico_core.transfer.evaluation.retrieval import RESULTS as RETRIEVAL
from hico_core.transfer.evaluation.retrieval import Retrieval

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """One accuracy of a probe."""

    probe: str
    accuracy: float
    standard_error: float | None = None
    chance: float | None = None
    num_test: int | None = None  # videos
    file: str

    @property
    def interval(self) -> Estimate | None:
        """95 % interval of the accuracy; None if the number of test videos is unknown."""
        return None if self.num_test is None else wilson_interval(self.accuracy, self.num_test)

    def in_words(self) -> str:
        """The accuracy with its context, in words."""
        if self.num_test is not None and self.chance is not None:
            return in_context(self.accuracy, self.num_test, chance=self.chance)
        return percent(self.accuracy) + ("" if self.chance is None else f" (chance {percent(self.chance)})")


class RetrievalRow(NamedTuple):
    """A measurement of `hico retrieve --protocol`."""

    features: str  # path relative to the workspace
    found: Retrieval


@dataclass(frozen=True, slots=True, kw_only=True)
class Localised:
    """The measurements of `hico probe --segments`."""

    file: str
    num_videos: int
    num_groups: int
    seconds_of_classes: dict[str, int]
    rows: list[LocalisationRow]  # for the encoder's features, for those probed with them, and for the baselines


class Results(NamedTuple):
    """All measurements of an encoder."""

    probes: list[ProbeRow]
    retrieval: list[RetrievalRow]
    localised: list[Localised]

    @property
    def tested(self) -> ProbeRow | None:
        """Accuracy of a finetuned classifier, from the test at the end of training or from a later one."""
        of_test = {row.probe: row for row in self.probes}
        return of_test.get("finetuning, top1") or of_test.get("evaluation, top1")


def read_results(run: Path, workspace: Path) -> Results:
    """Read the measurements of a run's encoder by `hico demo`, `finetune`, `evaluate`, `probe` and `retrieve`.

    Args:
        run: folder of the run.
        workspace: the workspace that holds it.

    Raises:
        HicoError: a file is damaged.

    """
    found = [
        ProbeRow(probe=row["probe"], accuracy=row["accuracy"], chance=row["chance"], file="segment_probes.json")
        for row in _json_object(run / "segment_probes.json").get("scores", [])
    ]
    found += [row for place, words in _TESTS.items() for row in _tested(run / place, words)]
    retrieval, localised = [], []
    for file, content in _of_encoder(sorted((workspace / "probes").glob("*.json")), run, workspace):
        if "rows" in content:
            localised.append(_valid(file, {**content, "file": file.name}, Localised))
        else:
            found += _probed(file, content)
    for place, words in _TESTS.items():
        for file, _ in _of_encoder(sorted((workspace / "runs").glob(f"*/{place}")), run, workspace):
            found += _tested(file, f"{words} of {file.relative_to(workspace / 'runs').parts[0]}")
    for file, content in _of_encoder(sorted((workspace / RETRIEVAL).glob("*.json")), run, workspace):
        retrieval.append(RetrievalRow(str(content.get("features")), _valid(file, content, Retrieval)))
    return Results(found, retrieval, localised)


# Files in the folder of a finetuning run, and the step that wrote them.
_TESTS = {"results.json": "finetuning", "evaluation/results.json": "evaluation"}


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _of_encoder(files: list[Path], run: Path, workspace: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the files that name the encoder of a run, with their content."""
    for file in files:
        content = _json_object(file)
        encoder = str(content.get("encoder", ""))  # relative to the workspace, or, in older files, to where it ran
        if encoder and any(
            place.is_relative_to(run.absolute()) for place in (workspace / encoder, Path(encoder).absolute())
        ):
            yield file, content


def _tested(file: Path, words: str) -> list[ProbeRow]:
    results = _json_object(file)
    num_classes = results.get("num_classes")  # older files have none
    return [
        ProbeRow(
            probe=f"{words}, {name}",
            accuracy=results[name],
            chance=first / num_classes if num_classes else None,
            num_test=results.get("num_videos"),
            file=file.name,
        )
        for name, first in (("top1", 1), ("top5", 5))
        if is_number(results.get(name))
    ]


def _probed(file: Path, content: dict[str, Any]) -> list[ProbeRow]:
    num_test = content.get("num_test", [])
    measured = {"linear probe": content.get("linear"), "k-NN": content.get("knn")}
    measured |= {f"{shots}-shot": value for shots, value in content.get("few_shot", {}).items()}
    return [
        ProbeRow(
            probe=name,
            accuracy=value["mean"],
            standard_error=value["standard_error"],
            chance=content.get("chance"),
            # The number of test videos is clear only if there is a single split.
            num_test=num_test[0] if len(num_test) == 1 else None,
            file=file.name,
        )
        for name, value in measured.items()
        if value
    ]


def _valid(file: Path, content: object, kind: type[Content]) -> Content:
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _damaged(file) from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(path) from error
    return content if isinstance(content, dict) else {}


def _damaged(path: Path) -> HicoError:
    return HicoError("is damaged; remove it, and run what wrote it again", subject=path)
