"""A synthetic corpus on the disk: untrimmed videos to split and index like any others, and labels for their content.

FOLDER/train/ has two thirds of the videos, FOLDER/test/ every third one; FOLDER/labels.jsonl has one line per segment,
and FOLDER/corpus.json the recipe from which everything follows.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from hico_core.base.choices import Design
from hico_core.base.errors import HicoError, UsageError
from hico_core.base.files import lock, read_json_lines, remove_abandoned
from hico_core.base.storage import write_text, written_beside
from hico_core.evidence.painting import paint
from hico_core.evidence.scenery import FPS, draw_scenery, draw_script

# `hico split` leaves twice the side that is trained on; its encoder needs some pixels to work with.
SIDE = 64

# x264 settings: grain and movement survive. Its macroblock tree sometimes gives different bits for the same frames.
_ENCODER = {"crf": "12", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}


class CorpusRecipe(BaseModel, frozen=True, extra="forbid"):
    """Everything that determines a corpus; the same recipe gives the same frames."""

    videos: int = Field(ge=3)
    seed: int = Field(0, ge=0)
    design: Design = "scenes"
    look: float = Field(0.5, ge=0, le=1)
    """How strongly the videos differ in what all of their frames share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentLabel:
    """A line of labels.jsonl."""

    video: str  # its id
    subset: Literal["train", "test"]
    start: float  # seconds from the video's first frame
    end: float
    topic: int  # of the video
    action: str | None  # None in a segment that is unrelated to the topic
    scene: str | None
    filler: str | None  # the content of such a segment


def subset_of(number: int) -> Literal["train", "test"]:
    """The subset of a video, whatever the number of videos."""
    return "test" if number % 3 == 2 else "train"


def video_id(number: int) -> str:
    """The file name of a video, without its extension."""
    return f"made_{number:05d}"


def labels_of(recipe: CorpusRecipe) -> Iterator[SegmentLabel]:
    """Yield the label of each segment of a corpus."""
    scenery = draw_scenery(recipe.seed)
    for number in range(recipe.videos):
        script = draw_script(scenery, seed=recipe.seed, number=number, design=recipe.design, look=recipe.look)
        for segment in script.segments:
            staging = segment.staging
            yield SegmentLabel(
                video=video_id(number),
                subset=subset_of(number),
                start=segment.start_seconds,
                end=segment.end_seconds,
                topic=script.topic,
                action=None if staging is None else staging.motion.action,
                scene=None if staging is None else staging.scene.name,
                filler=segment.filler,
            )


def make_corpus(
    recipe: CorpusRecipe, folder: Path, *, on_video: Callable[[int], None] = lambda number: None
) -> list[SegmentLabel]:
    """Render the videos that are missing. A folder may grow, but not change in any other way.

    Args:
        recipe: of the corpus.
        folder: for the corpus; made if missing.
        on_video: called with the number of each video that exists.

    Raises:
        UsageError: the folder holds another corpus, or something else.
        HicoError: another command is rendering videos there, or the disk is full.

    """
    _require_own_or_empty(folder, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", refusal=f"{folder}: another command is making a corpus here; wait for it to end"):
        remove_abandoned(folder)
        write_text(folder / "corpus.json", recipe.model_dump_json(indent=2) + "\n")
        labels = list(labels_of(recipe))
        write_text(folder / "labels.jsonl", "".join(json.dumps(asdict(label)) + "\n" for label in labels))
        scenery = draw_scenery(recipe.seed)
        for subset in ("train", "test"):
            (folder / subset).mkdir(exist_ok=True)
            remove_abandoned(folder / subset)
        for number in range(recipe.videos):
            path = folder / subset_of(number) / f"{video_id(number)}.mp4"
            if not path.exists():
                script = draw_script(scenery, seed=recipe.seed, number=number, design=recipe.design, look=recipe.look)
                write_video(path, paint(script, side=SIDE))
            on_video(number)
    return labels


def _require_own_or_empty(folder: Path, recipe: CorpusRecipe) -> None:
    """Check that a folder is empty or holds this corpus; see `make_corpus`."""
    there = read_recipe(folder)
    if there is None:
        require_empty(folder, but={".lock"}, wanted="synthetic corpus")
        return
    changed = [name for name in CorpusRecipe.model_fields if getattr(there, name) != getattr(recipe, name)]
    if changed not in ([], ["videos"]) or there.videos > recipe.videos:
        made = ", ".join(f"{name} {getattr(there, name)}" for name in CorpusRecipe.model_fields)
        raise UsageError(f"{folder}: contains a corpus of {made}; use the same settings, or name a new folder")


def require_empty(folder: Path, *, but: Collection[str], wanted: str) -> None:
    """Check that a folder is missing or empty, except for files with these names.

    Raises:
        UsageError: it is a file, or it has other content than is wanted.

    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder, which is created if missing")
    if folder.exists() and any(path.name not in but for path in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and contains no {wanted}; name a new folder")


def read_recipe(folder: Path) -> CorpusRecipe | None:
    """The recipe of the corpus in a folder; None if there is no corpus."""
    path = folder / "corpus.json"
    try:
        return CorpusRecipe.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, ValueError) as error:
        raise HicoError(f"{path}: was not written by `hico demo`; remove the folder, or name a new one") from error


def read_labels(folder: Path) -> list[SegmentLabel]:
    """The lines of a corpus's labels.jsonl.

    Raises:
        HicoError: there are no labels, or a line is damaged.

    """
    path = folder / "labels.jsonl"
    read = read_json_lines(path)
    if read.num_unreadable or not read.rows:
        raise HicoError(f"{path}: is missing or damaged; `hico demo --corpus-only {folder}` writes it again")
    return [SegmentLabel(**line) for line in read.rows]


def write_video(path: Path, frames: Sequence[np.ndarray] | np.ndarray) -> None:
    """Write frames (T, S, S, 3) uint8 as an mp4 file, whole or not at all."""
    with written_beside(path) as beside, av.open(str(beside), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ENCODER)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
