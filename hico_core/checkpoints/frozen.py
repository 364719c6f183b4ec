"""Encoders with their weights, in evaluation, whoever made them: for features, probes and retrieval.

A user names one as NAME=WEIGHTS, an encoder of the table with a file of weights, DEFAULT (those of its library) or
random; as NAME alone, where it needs none, such as pixels; or as a file or the folder of a run.
"""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from hico_core.base.addresses import DEFAULT_ROOT
from hico_core.base.errors import HicoError, UsageError, short_reason
from hico_core.checkpoints.content import LAST, EncoderOrigin
from hico_core.checkpoints.reading import (
    CheckpointFile,
    clip_shape_of,
    encoder_of,
    hash_of_tensors,
    load_exactly,
    model_of,
    picture_of,
    prefix_of_encoder,
    read_checkpoint,
    weights_in,
    without_prefix,
)
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import ClipShape, picture_for
from hico_core.encoders.pictures import FrameByFrame
from hico_core.encoders.table import ENCODERS, EncoderEntry, entry_of

logger = logging.getLogger(__name__)

# WEIGHTS that are no file.
DEFAULT, RANDOM = "DEFAULT", "random"

# What begins the names of encoders of which there is no list.
_FOLDER, _CODE = "hf:", "python:"
_FAMILIES = ("torchvision:", "timm:", _FOLDER, _CODE)

EXPORTED = ".pt2"
_SUFFIXES = (".pt", ".pth", ".pyth", ".safetensors", EXPORTED)

# In a file that `hico convert` has exported: what its program has to be shown.
_ABOUT = "extra/hico.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenEncoder:
    """An encoder that can be shown videos."""

    name: str  # in tables: torchvision:r3d_18, pixels, or that of a run or file
    table_name: str | None  # its name in the table of encoders; None: a file of hico or the authors, which says all
    origin: EncoderOrigin | None  # its weights; None: it has none
    network: nn.Module  # in evaluation; normalised clips (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F)
    entry: EncoderEntry  # what it is shown and gives

    @property
    def text(self) -> str:
        """By which `load_frozen` finds it again."""
        return encoder_text(self.table_name, self.weights)

    @property
    def weights(self) -> str:
        """Where they are from; "" of an encoder that has none or brings its own."""
        return "" if self.origin is None else self.origin.path

    @property
    def sha256(self) -> str:
        """Of its weights; of one without any, of nothing."""
        return hashlib.sha256().hexdigest() if self.origin is None else self.origin.sha256

    @property
    def folder_name(self) -> str:
        """What files that are made with it are called: torchvision:r3d_18 -> torchvision-r3d_18."""
        family, _, rest = self.name.partition(":")
        return "-".join(part for part in (family, Path(rest).name.replace(":", "-")) if part)


def load_frozen(text: str, *, warn: Callable[[str], None] = logger.warning) -> FrozenEncoder:
    """The encoder that a user names.

    Args:
        text: see above.
        warn: told what one should know, such as that code of the user's runs.

    Raises:
        UsageError: there is no such encoder, or its weights are not named.
        HicoError: its weights cannot be read, or are of another network.

    """
    name = text.partition("=")[0]
    if name in ENCODERS or text.startswith(_FAMILIES):
        return _of_table(text, warn)
    path = Path(text)
    if path.suffix == EXPORTED:
        warn(f"{path}: is a program, and opening it may run whatever code stands in it")
        return _of_program(path)
    if not path.exists() and "/" not in name and (name != text or path.suffix not in _SUFFIXES):
        run = Path(DEFAULT_ROOT) / "runs" / name
        if run.is_dir():
            raise UsageError(f"{name}: no such encoder; did you mean {run}?")
        entry_of(name)  # which names the nearest
    return _of_file(_file_of_run(path) if path.is_dir() else path)


def _name_and_weights(text: str) -> tuple[str, str | None]:
    """NAME=WEIGHTS. Names of files may hold such signs as well; of a folder of transformers, all is the name."""
    if text.startswith(_FOLDER):
        last = next((word for word in (DEFAULT, RANDOM) if text.endswith(f"={word}")), None)
        where = text.removeprefix(_FOLDER).removesuffix(f"={last}")
        return _FOLDER + (str(Path(where).absolute()) if Path(where).is_dir() else where), last
    name, _, weights = text.partition("=")
    return name, weights or None


def encoder_text(name: str | None, weights: str) -> str:
    """What `load_frozen` takes, from what a manifest says.

    Args:
        name: in the table; None: the file says all.
        weights: "" of an encoder that has none.

    """
    return "=".join(part for part in (name, weights) if part)


def _file_of_run(folder: Path) -> Path:
    """What a run has exported, or its last checkpoint.

    Raises:
        UsageError: there is neither.

    """
    kept = [folder / "export" / "encoder.safetensors", folder / "checkpoints" / LAST]
    found = next((path for path in kept if path.exists()), None)
    if found is None:
        raise UsageError(f"{folder}: not the folder of a run with an encoder (no {kept[0].relative_to(folder)})")
    return found


def run_or_stem(path: Path) -> str:
    """hico-data/runs/hacs-hico-s/export/encoder.safetensors -> hacs-hico-s; of another file, its stem."""
    return path.absolute().parents[1].name if path.parent.name in {"export", "checkpoints"} else path.stem


def _of_file(path: Path, *, as_name: str | None = None) -> FrozenEncoder:
    """A file that says itself what its encoder is and has to be shown.

    Raises:
        UsageError: it is another encoder than the one that it was given for.

    """
    file = read_checkpoint(path)
    network = encoder_of(file)
    name = model_of(file).encoder
    if as_name not in (None, name):
        raise UsageError(f"{path}: holds the weights of {name}, not of {as_name}")
    return FrozenEncoder(
        name=run_or_stem(path),
        table_name=None,
        origin=_origin_of(file),
        network=network,
        entry=replace(entry_of(name), picture=picture_of(file), clip=clip_shape_of(file)),
    )


def _origin_of(file: CheckpointFile) -> EncoderOrigin:
    return EncoderOrigin(path=str(file.path.absolute()), sha256=file.sha256)


def _of_program(path: Path) -> FrozenEncoder:
    """What `hico convert` writes for PyTorch alone.

    Raises:
        HicoError: it is something else, damaged, or does not take what it says it has to be shown.

    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            inside = next((name for name in parts.namelist() if name.endswith(_ABOUT)), None)
            about = None if inside is None or parts.testzip() else json.loads(parts.read(inside))
    except (OSError, zipfile.BadZipFile) as error:
        raise HicoError(f"{path}: cannot be read as an exported encoder ({short_reason(error)})") from error
    if about is None:
        raise HicoError(f"{path}: is damaged, or no encoder that `hico convert` has exported")
    data = DataConfig(crop_size=int(about["size"]), num_frames=int(about["num_frames"]))
    augment = AugmentConfig(mean=json.loads(about["mean"]), std=json.loads(about["std"]))
    clip = ClipShape(data.num_frames, float(about["fps"]))
    network = torch.export.load(io.BytesIO(content)).module()
    del network.train, network.eval  # which refuse; what the program does is fixed, whatever mode it is put into
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, clip.num_frames, data.crop_size, data.crop_size))
    except (RuntimeError, AssertionError) as error:
        shape = f"{clip.num_frames} frames of {data.crop_size} pixels"
        raise HicoError(f"{path}: does not take {shape}, as it says ({short_reason(error)})") from error
    return FrozenEncoder(
        name=path.stem,
        table_name=None,
        origin=EncoderOrigin(path=str(path.absolute()), sha256=hashlib.sha256(content).hexdigest()),
        network=network,
        entry=replace(entry_of(about["model"]), picture=picture_for(data, augment), clip=clip),
    )


def _of_table(text: str, warn: Callable[[str], None]) -> FrozenEncoder:
    """An encoder of the table, or of one of the families."""
    name, weights = _name_and_weights(text)
    if name.startswith(_CODE):
        warn(f"{name}: runs the code that you name")
    entry = entry_of(name, download=weights == DEFAULT)
    if name in ("s3dg", "s3dg-tiny") and weights not in (None, DEFAULT, RANDOM):
        return _of_file(Path(weights), as_name=name)
    network, origin = _with_weights(name, entry, weights)
    return FrozenEncoder(name=name, table_name=name, origin=origin, network=network.eval(), entry=entry)


def _with_weights(name: str, entry: EncoderEntry, weights: str | None) -> tuple[nn.Module, EncoderOrigin | None]:
    """The network, and where its weights are from.

    Raises:
        UsageError: it is not said where from, or there are none to be had.
        HicoError: they cannot be had, or are of another network.

    """
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # so that the same name is the same encoder each time
            network = entry.build()
    elif weights == DEFAULT or (weights is None and entry.is_whole):
        network = _of_library(name, entry)
    elif weights is None:
        raise UsageError(f"{name}: its weights are not named; write {name}=FILE{_other_weights(name, entry)}")
    else:
        file = read_checkpoint(Path(weights))
        network = entry.build()
        _load(network, file, entry, name=name)
        return network, _origin_of(file)
    state = network.state_dict()
    return network, EncoderOrigin(path=weights or "", sha256=hash_of_tensors(state)) if state else None


def _other_weights(name: str, entry: EncoderEntry) -> str:
    default = f", {name}={DEFAULT} for those of its library, which may be downloaded," if entry.pretrained else ""
    return f"{default} or {name}={RANDOM}"


def _of_library(name: str, entry: EncoderEntry) -> nn.Module:
    if entry.pretrained is None:
        if entry.is_whole:
            return entry.build()
        raise UsageError(f"{name}={DEFAULT}: has no weights that everybody can get; write {name}=FILE")
    try:
        return entry.pretrained()
    except OSError as error:
        raise HicoError(f"{name}: the weights of its library cannot be had ({short_reason(error)})") from error


def _load(network: nn.Module, file: CheckpointFile, entry: EncoderEntry, *, name: str) -> None:
    """Load weights as they are published: perhaps behind a prefix, and with a classifier.

    Raises:
        HicoError: they are of another network.

    """
    network = network.of_picture if isinstance(network, FrameByFrame) else network  # as its library names weights
    state = weights_in(file.content, file.path)
    prefix = prefix_of_encoder(state, list(network.state_dict())[:1], name=name, origin=file.path)
    beyond = tuple(f"{part}." for part in entry.beyond)
    # A larger network may have all that this one has, so that nothing else may be left over.
    found = {entry: value for entry, value in without_prefix(state, prefix).items() if not entry.startswith(beyond)}
    load_exactly(network, found, origin=f"{file.path} as {name}")
