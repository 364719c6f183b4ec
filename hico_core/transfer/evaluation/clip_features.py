"""Features of labelled clips, computed once for each encoder and kept: one file per clip, in one folder per encoder.

FOLDER/<hash>/encoder.json   what the hash stands for: encoder, weights, how clips are read
FOLDER/<hash>/<hash>.npy     views of a clip (V, F), named by path, size and time of its file
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError
from hico_core.base.files import lock, remove_abandoned
from hico_core.base.storage import write_text, written_beside
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.records import source_file
from hico_core.encoding.hardware import choose_device, choose_precision
from hico_core.encoding.lanes import WholeVideo
from hico_core.transfer.evaluation.labelled import encoded_views
from hico_core.transfer.extraction.feature_files import read_array

logger = logging.getLogger(__name__)


class Computing(NamedTuple):
    """The resources with which missing features are computed."""

    device: DeviceName
    workers: int | None  # number of reading processes; None: one per core


def hash_of(fields: Mapping[str, Any]) -> str:
    """The first 32 digits of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def identity_of(encoder: FrozenEncoder, *, num_views: int, precision: str) -> dict[str, Any]:
    """Everything that determines an encoder's features of a clip."""
    return {
        "encoder": encoder.name,
        "weights_sha256": encoder.origin.sha256 if encoder.origin else None,
        "picture": asdict(encoder.entry.picture),
        "clip": encoder.entry.clip._asdict(),
        "num_views": num_views,
        "precision": precision,
    }


def features_of_clips(
    encoder: FrozenEncoder,
    paths: Sequence[Location],
    folder: Path,
    *,
    num_views: int,
    computing: Computing,
    on_clip: Callable[[int], None] = lambda num_done: None,
) -> list[np.ndarray | None]:
    """Features of each clip, (V, F): kept ones are read, missing ones are computed and kept.

    A clip that cannot be read has None, and is logged.

    Args:
        encoder: the encoder of the features.
        paths: of the clips.
        folder: holds the features of all encoders.
        num_views: number of the encoder's usual clips, spread over the length of a video; a single one is in the
            middle.
        computing: device and workers.
        on_clip: called after each computed clip with the number of clips finished.

    Raises:
        HicoError: a kept file is damaged, or another process is computing features of this encoder.

    """
    precision = choose_precision("auto", choose_device(computing.device))
    identity = identity_of(encoder, num_views=num_views, precision=precision.name)
    place = folder / hash_of(identity)
    files = [place / f"{hash_of(source_file(Source(video_id='', path=path)).model_dump())}.npy" for path in paths]
    missing = {file: path for file, path in zip(files, paths, strict=True) if not file.exists()}
    if missing:
        refusal = f"{place}: another process is computing features of {encoder.name}; wait for it to end"
        with lock(place / ".lock", refusal=refusal):
            remove_abandoned(place)
            write_text(place / "encoder.json", json.dumps(identity, indent=2) + "\n")
            videos = [WholeVideo(path, []) for path in missing.values()]
            encoded = encoded_views(encoder, videos, num_views=num_views, **computing._asdict())
            for number, (file, found) in enumerate(zip(missing, encoded, strict=True), start=1):
                if found.rows is None:
                    logger.warning("left out: %s", found.bad)
                else:
                    keep(file, found.rows.numpy())
                on_clip(len(paths) - len(missing) + number)
    return [read_kept(file) if file.exists() else None for file in files]


def keep(file: Path, rows: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    with written_beside(file) as beside, beside.open("xb") as opened:
        np.save(opened, rows)


def read_kept(file: Path) -> np.ndarray:
    """Read an array that `keep` wrote.

    Raises:
        HicoError: the file is damaged.

    """
    try:
        return np.asarray(read_array(file))
    except HicoError as error:
        raise HicoError("is damaged; remove it, and run `hico compare` again", subject=file) from error
