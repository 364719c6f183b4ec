"""Checkpoints: whole or absent, and readable without running any code that stands in them."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hico_core import __version__
from hico_core.data.loader import Position
from hico_core.errors import HicoError
from hico_core.interop import load_exactly, read_checkpoint

logger = logging.getLogger(__name__)

_FORMAT = "hico-checkpoint-2"

# The newest checkpoint of a run, and the one that was it before.
LAST = "last.pt"
BEFORE_LAST = "before_last.pt"


class Progress(NamedTuple):
    """What a resumed run needs besides the weights and the optimiser."""

    position: Position
    bad_videos: list[str]  # ids of the videos that could not be decoded
    world_size: int = 1  # processes that trained together
    epochs_done: float = 0.0  # passes over the videos


def write_file_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside, flush to disk, rename: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def checkpoint_content(
    *, model: dict[str, Tensor], optimizer: dict[str, Any], progress: Progress, config: dict[str, Any]
) -> dict[str, Any]:
    """What stands in a checkpoint file; all values are tensors or plain."""
    return {
        "format": _FORMAT,
        "hico_version": __version__,
        "config": config,
        "model": model,
        "optimizer": optimizer,
        "position": list(progress.position),
        "epochs_done": progress.epochs_done,
        "bad_videos": progress.bad_videos,
        "world_size": progress.world_size,
    }


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: dict[str, Any],
) -> None:
    """Write everything from which training goes on exactly."""
    content = checkpoint_content(
        model=model.state_dict(), optimizer=optimizer.state_dict(), progress=progress, config=config
    )
    if path.name == LAST and path.exists():
        path.replace(path.with_name(BEFORE_LAST))  # to go back to if a disk loses the new one
    write_file_atomically(path, lambda beside: torch.save(content, beside))


def restore_checkpoint(
    content: dict[str, Any], *, model: nn.Module, optimizer: torch.optim.Optimizer, origin: Path
) -> Progress:
    """Put a checkpoint's weights and optimiser state in place.

    Args:
        content: of the file, from `hico_core.interop.read_checkpoint`.
        model: takes the weights.
        optimizer: takes its state.
        origin: the file, for messages.

    Raises:
        HicoError: it is no checkpoint of ours, or one of another model.

    """
    if content.get("format") != _FORMAT:
        raise HicoError(f"{origin}: not a checkpoint of this version of hico; start another run with --init-from")
    load_exactly(model, content["model"], origin=str(origin))
    optimizer.load_state_dict(content["optimizer"])
    return Progress(
        Position(*content["position"]),
        list(content["bad_videos"]),
        int(content["world_size"]),
        float(content["epochs_done"]),
    )


def restore_last(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the last checkpoint of a run in place that can be read; None where there is none.

    Args:
        folder: of the run's checkpoints.
        model: takes the weights.
        optimizer: takes its state.

    Raises:
        HicoError: none of them can be read, or the last one is of another model.

    """
    found = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    for path in found:
        try:
            content = read_checkpoint(path)
        except HicoError as error:
            if path == found[-1]:
                raise
            logger.warning("%s; going on from the one before", error)
            continue
        return restore_checkpoint(content, model=model, optimizer=optimizer, origin=path)
    return None


def export_encoder(path: Path, backbone: nn.Module) -> None:
    """Write the encoder alone as safetensors, under the names of `S3DG`."""
    tensors: dict[str, Tensor] = {name: value.contiguous().cpu() for name, value in backbone.state_dict().items()}
    write_file_atomically(path, lambda beside: save_file(tensors, beside, metadata=encoder_metadata()))


def encoder_metadata() -> dict[str, str]:
    """What an exported encoder says of itself."""
    return {"format": "hico-encoder", "hico_version": __version__}
