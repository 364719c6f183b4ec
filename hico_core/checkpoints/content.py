"""Checkpoints: written atomically, and readable without running any code in them."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, FiniteFloat, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.base.files import sync
from hico_core.base.storage import written_beside
from hico_core.base.version import __version__
from hico_core.checkpoints.reading import (
    ENCODER_SETTINGS,
    CheckpointFile,
    hash_of_tensors,
    load_exactly,
    read_checkpoint,
    with_own_memory,
)
from hico_core.config import ModelConfig, one_or_three
from hico_core.config.explain import first_wrong
from hico_core.data.pictures import ClipShape, Picture
from hico_core.data.plan import Position
from hico_core.data.videos import IndexIdentity

logger = logging.getLogger(__name__)

_FORMAT = "hico-checkpoint-3"

# The newest checkpoint of a run, and the previous one.
LAST = "last.pt"
BEFORE_LAST = "before_last.pt"

# The checkpoint with the best validation accuracy, in runs with validation videos.
BEST = "best.pt"


# The state of loss scaling; see `LossScaling.state_dict`.
LossScale = dict[str, int | FiniteFloat]


class EncoderOrigin(BaseModel, frozen=True, extra="forbid"):
    """The file from which a run started."""

    path: str
    sha256: str
    model: ModelConfig | None = None  # the encoder in the file; None in files of early versions, which had only two


class Progress(BaseModel, frozen=True, extra="forbid"):
    """The state that a resumed run needs besides the weights and the optimiser."""

    position: Position = Position()
    epochs_done: float = 0.0  # completed passes over the videos
    last_step_epoch: float | None = None  # passes completed before the last step; None before the first one
    bad_videos: list[str] = []  # ids of the videos that could not be decoded
    world_size: int | None = 1  # processes that trained together; None in a converted checkpoint
    index: IndexIdentity | None = None  # of the videos; None in a converted checkpoint
    encoder: EncoderOrigin | None = None  # the file from which finetuning started
    best_accuracy: float | None = None  # on the validation videos


class Content(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """The content of a checkpoint file; all values are tensors or plain values."""

    format: str = _FORMAT
    hico_version: str = __version__
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaling: LossScale = {}  # loss scaling in float16; empty in every other precision
    progress: Progress


def write_checkpoint(path: Path, content: Content) -> None:
    """Write everything that training needs to continue exactly.

    Raises:
        HicoError: the disk is full.

    """
    write_bytes(path, torch_file_bytes(_plain(content)))


def _plain(content: Content) -> dict[str, Any]:
    """The content as tensors and plain values."""
    return {**dict(content), "progress": content.progress.model_dump()}


def checkpoint_of(
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaling: dict[str, int | float],
    progress: Progress,
    config: dict[str, Any],
) -> memoryview:
    """A run's checkpoint as the bytes of its file.

    Raises:
        HicoError: the model has weights that are not finite; a file with such weights could not be read again.

    """
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise HicoError(
                f"{name} has values that are not finite, so no checkpoint is written; continue from the last one with "
                "a lower learning rate"
            )
    remembered = optimizer.state_dict()
    for group in remembered["param_groups"]:
        group["lr"] = float(group["lr"])  # on a GPU, a tensor
    content = Content(
        config=config,
        model=model.state_dict(),
        optimizer=remembered,
        scaling=scaling,
        progress=progress,
    )
    return torch_file_bytes(_plain(content))


def torch_file_bytes(content: dict[str, Any]) -> memoryview:
    """A file in PyTorch's format, built in memory, because PyTorch's own writer aborts the process on a full disk."""
    buffer = io.BytesIO()
    torch.save(with_own_memory(content), buffer)
    return buffer.getbuffer()


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically.

    Raises:
        HicoError: the disk is full.

    """
    with written_beside(path) as beside:
        beside.write_bytes(content)


def write_of_run(path: Path, content: memoryview) -> None:
    """Write a checkpoint of a run; the last checkpoint so far is kept as the previous one.

    Args:
        path: in the run's folder of checkpoints.
        content: from `checkpoint_of`.

    Raises:
        HicoError: the disk is full.

    """
    with written_beside(path) as beside:
        beside.write_bytes(content)
        sync(beside)  # before the last one gives way
        if path.name == LAST and path.exists():
            path.replace(path.with_name(BEFORE_LAST))  # a fallback in case the disk loses the new one


def file_of(content: Content, name: str) -> CheckpointFile:
    """Turn the content of a checkpoint of ours back into what reading its file gives."""
    return CheckpointFile(Path(name), sha256="", content=_plain(content), metadata={})


def content_of(file: CheckpointFile) -> Content:
    """The content of a checkpoint of ours.

    Raises:
        HicoError: it is not such a checkpoint, or not of this version.

    """
    if file.content.get("format") != _FORMAT:
        raise HicoError(f"{file.path}: not a checkpoint of this version of hico; start a new run with --init-from")
    try:
        return Content.model_validate(file.content)
    except ValidationError as error:
        raise HicoError(f"{file.path}: not a checkpoint that hico wrote ({first_wrong(error)})") from error


def restore(content: Content, *, model: nn.Module, optimizer: torch.optim.Optimizer, origin: Path) -> None:
    """Load a checkpoint's weights and optimiser state.

    Raises:
        HicoError: it belongs to another model or optimiser.

    """
    load_exactly(model, content.model, origin=str(origin))
    try:
        saved_and_own = zip(content.optimizer["param_groups"], optimizer.param_groups, strict=True)
        groups = [_as_computed_here(saved, own) for saved, own in saved_and_own]
        optimizer.load_state_dict({**content.optimizer, "param_groups": groups})
    except (ValueError, KeyError, TypeError) as error:
        raise HicoError(f"{origin}: its optimiser state does not fit this run ({error})") from error


def _as_computed_here(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The saved options of a parameter group, except those that depend on the device."""
    rate = own["lr"].new_tensor(saved["lr"]) if isinstance(own["lr"], Tensor) else saved["lr"]
    return {**saved, "lr": rate, **({"fused": own["fused"]} if "fused" in own else {})}


def read_last(folder: Path) -> Content | None:
    """The newest readable checkpoint of a run; None if there is no checkpoint.

    Raises:
        HicoError: there are checkpoints, but none can be read.

    """
    newest = _newest_readable(folder)
    return None if newest is None else newest[1]


def take_last(folder: Path) -> Content | None:
    """The same for a run that will write further checkpoints into the folder.

    If the last checkpoint cannot be read, it is replaced by the previous one. Otherwise it would take the place of the
    previous one when the next is written, and a kill at that moment would leave none that can be read.

    Raises:
        HicoError: there are checkpoints, but none can be read.

    """
    newest = _newest_readable(folder)
    if newest is None:
        return None
    path, content = newest
    if path.name != LAST:
        path.replace(folder / LAST)
    return content


def _newest_readable(folder: Path) -> tuple[Path, Content] | None:
    found = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    for path in found:
        try:
            return path, content_of(read_checkpoint(path))
        except HicoError as error:
            if path == found[-1]:
                raise
            logger.warning("%s; continuing from the previous one", error)
    return None


def export_encoder(
    path: Path,
    backbone: nn.Module,
    picture: Picture | None = None,
    clip: ClipShape | None = None,
    model: ModelConfig | None = None,
) -> None:
    """Write the encoder alone as safetensors, under its own names; see `encoder_bytes`."""
    write_bytes(path, encoder_bytes(backbone.state_dict(), picture, clip, model))


def encoder_bytes(
    state: dict[str, Tensor], picture: Picture | None, clip: ClipShape | None, model: ModelConfig | None
) -> bytes:
    """A safetensors file of an encoder's weights, with their hash, because the format has no checksums.

    Args:
        state: the encoder's weights.
        picture: the frames on which it was trained; None: as the paper's.
        clip: the clips on which it was trained; None: as the paper's.
        model: which encoder it is; None: one that can be recognised by its entries.

    """
    tensors = {name: value.contiguous().cpu().clone() for name, value in state.items()}
    metadata = {"format": "hico-encoder", "hico_version": __version__, "sha256": hash_of_tensors(tensors)}
    if picture is not None:
        metadata["picture"] = json.dumps(
            {"size": picture.size, "mean": one_or_three(picture.mean), "std": one_or_three(picture.std)}
        )
    if clip is not None:
        metadata["clip"] = json.dumps(clip._asdict())
    if model is not None:
        metadata[ENCODER_SETTINGS] = model.model_dump_json()
    return _in_one_order(save(tensors, metadata=metadata))


def _in_one_order(content: bytes) -> bytes:
    """A safetensors file with sorted metadata, which the package writes in a different order each time.

    The same weights then give the same file, whose hash identifies the encoder of features.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
