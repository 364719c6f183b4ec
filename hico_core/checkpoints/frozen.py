"""Encoders with their weights, in evaluation mode, from any source: for features, probes and retrieval.

A user names an encoder as NAME=WEIGHTS, where NAME is in the table and WEIGHTS is a file, DEFAULT (its library's
weights) or random; as NAME alone if it needs no weights, such as pixels; or as a file or the folder of a run.
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
    backbone_of,
    clip_shape_of,
    encoder_of,
    hash_of_tensors,
    load_exactly,
    model_as,
    model_of,
    picture_of,
    prefix_of_encoder,
    read_checkpoint,
    says_its_encoder,
    weights_in,
    without_prefix,
)
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import ClipShape, picture_for
from hico_core.encoders.pictures import FrameByFrame
from hico_core.encoders.table import ENCODERS, EncoderEntry, entry_of
from hico_core.encoders.trained import build_encoder

logger = logging.getLogger(__name__)

# Values of WEIGHTS that are not files.
DEFAULT, RANDOM = "DEFAULT", "random"

# Prefixes of the names of encoders that are not listed one by one.
_FOLDER, _CODE = "hf:", "python:"
_FAMILIES = ("torchvision:", "timm:", _FOLDER, _CODE)

EXPORTED = ".pt2"
_SUFFIXES = (".pt", ".pth", ".pyth", ".safetensors", EXPORTED)

# Entry of a file exported by `hico convert` that describes the program's input.
_ABOUT = "extra/hico.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenEncoder:
    """An encoder that is ready to encode videos."""

    name: str  # shown in tables: torchvision:r3d_18, pixels, or the name of a run or file
    table_name: str | None  # its name in the table of encoders; None: a file of hico or the authors is enough
    origin: EncoderOrigin | None  # where its weights come from; None: it has no weights
    network: nn.Module  # in evaluation mode; normalised clips (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F)
    entry: EncoderEntry  # its input and output

    @property
    def text(self) -> str:
        """The text from which `load_frozen` loads it again."""
        return encoder_text(self.table_name, self.weights)

    @property
    def weights(self) -> str:
        """Where its weights come from; "" for an encoder that has none or comes with its own."""
        return "" if self.origin is None else self.origin.path

    @property
    def sha256(self) -> str:
        """SHA-256 of its weights; for an encoder without weights, of the empty string."""
        return hashlib.sha256().hexdigest() if self.origin is None else self.origin.sha256

    @property
    def folder_name(self) -> str:
        """Its name for use in file names: torchvision:r3d_18 -> torchvision-r3d_18."""
        family, _, rest = self.name.partition(":")
        return "-".join(part for part in (family, Path(rest).name.replace(":", "-")) if part)


def load_frozen(text: str, *, warn: Callable[[str], None] = logger.warning) -> FrozenEncoder:
    """Load the encoder that a user names.

    Args:
        text: NAME=WEIGHTS, NAME, a file or a run's folder; see the top of this module.
        warn: called with warnings, such as that the user's code is run.

    Raises:
        UsageError: there is no such encoder, or its weights are not named.
        HicoError: its weights cannot be read, or belong to another network.

    """
    name = text.partition("=")[0]
    if name in ENCODERS or text.startswith(_FAMILIES):
        return _of_table(text, warn)
    path = Path(text)
    if path.suffix == EXPORTED:
        warn(f"{path}: is a program; opening it may run any code that it contains")
        return _of_program(path)
    if not path.exists() and "/" not in name and (name != text or path.suffix not in _SUFFIXES):
        run = Path(DEFAULT_ROOT) / "runs" / name
        if run.is_dir():
            raise UsageError(f"{name}: no such encoder; did you mean {run}?")
        entry_of(name)  # raises an error that suggests the nearest name
    return _of_file(_file_of_run(path) if path.is_dir() else path)


def _name_and_weights(text: str) -> tuple[str, str | None]:
    """Split NAME=WEIGHTS. A folder's name in hf:FOLDER may contain `=`, so only a final =DEFAULT or =random counts."""
    if text.startswith(_FOLDER):
        last = next((word for word in (DEFAULT, RANDOM) if text.endswith(f"={word}")), None)
        where = text.removeprefix(_FOLDER).removesuffix(f"={last}")
        return _FOLDER + (str(Path(where).absolute()) if Path(where).is_dir() else where), last
    name, _, weights = text.partition("=")
    return name, weights or None


def encoder_text(name: str | None, weights: str) -> str:
    """The text for `load_frozen`, made from the fields of a manifest.

    Args:
        name: the name in the table; None: the file is enough.
        weights: "" for an encoder that has none.

    """
    return "=".join(part for part in (name, weights) if part)


def _file_of_run(folder: Path) -> Path:
    """The exported encoder of a run, or its last checkpoint.

    Raises:
        UsageError: neither exists.

    """
    kept = [folder / "export" / "encoder.safetensors", folder / "checkpoints" / LAST]
    found = next((path for path in kept if path.exists()), None)
    if found is None:
        raise UsageError(f"{folder}: not a run with an encoder (no {kept[0].relative_to(folder)})")
    return found


def run_or_stem(path: Path) -> str:
    """hico-data/runs/hacs-hico-s/export/encoder.safetensors -> hacs-hico-s; for any other file, its stem."""
    return path.absolute().parents[1].name if path.parent.name in {"export", "checkpoints"} else path.stem


def _of_file(path: Path, *, as_name: str | None = None) -> FrozenEncoder:
    """The encoder of a file that itself describes the encoder and its input.

    Raises:
        UsageError: it holds another encoder than `as_name`.

    """
    file = read_checkpoint(path)
    network = encoder_of(file)
    name = model_of(file).encoder
    if as_name not in (None, name):
        raise UsageError(f"{path}: contains the weights of {name}, not of {as_name}")
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
    """The encoder in a program that `hico convert` exported.

    Raises:
        HicoError: it is not such a file, is damaged, or does not accept the input that it describes.

    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            inside = next((name for name in parts.namelist() if name.endswith(_ABOUT)), None)
            about = None if inside is None or parts.testzip() else json.loads(parts.read(inside))
    except (OSError, zipfile.BadZipFile) as error:
        raise HicoError(f"{path}: cannot be read as an exported encoder ({short_reason(error)})") from error
    if about is None:
        raise HicoError(f"{path}: is damaged, or was not exported by `hico convert`")
    data = DataConfig(crop_size=int(about["size"]), num_frames=int(about["num_frames"]))
    augment = AugmentConfig(mean=json.loads(about["mean"]), std=json.loads(about["std"]))
    clip = ClipShape(data.num_frames, float(about["fps"]))
    network = torch.export.load(io.BytesIO(content)).module()
    del network.train, network.eval  # they raise errors; a program computes the same in either mode
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, clip.num_frames, data.crop_size, data.crop_size))
    except (RuntimeError, AssertionError) as error:
        shape = f"{clip.num_frames} frames of {data.crop_size} pixels"
        raise HicoError(f"{path}: does not accept {shape}, although it says so ({short_reason(error)})") from error
    return FrozenEncoder(
        name=path.stem,
        table_name=None,
        origin=EncoderOrigin(path=str(path.absolute()), sha256=hashlib.sha256(content).hexdigest()),
        network=network,
        entry=replace(entry_of(about["model"]), picture=picture_for(data, augment), clip=clip),
    )


def _of_table(text: str, warn: Callable[[str], None]) -> FrozenEncoder:
    """An encoder of the table or of one of the families."""
    name, weights = _name_and_weights(text)
    if name.startswith(_CODE):
        warn(f"{name}: runs your own code")
    entry = entry_of(name, download=weights == DEFAULT)
    if name in ("s3dg", "s3dg-tiny") and weights not in (None, DEFAULT, RANDOM):
        return _of_file(Path(weights), as_name=name)
    if weights not in (None, DEFAULT, RANDOM):
        return _with_file(name, entry, read_checkpoint(Path(weights)))
    network, origin = _with_weights(name, entry, weights)
    return FrozenEncoder(name=name, table_name=name, origin=origin, network=network.eval(), entry=entry)


def _with_file(name: str, entry: EncoderEntry, file: CheckpointFile) -> FrozenEncoder:
    """An encoder of the table with the weights of a file; one of hico also says how it was trained, and on what input.

    Raises:
        UsageError: the file says that it holds another encoder.
        HicoError: the weights belong to another network.

    """
    if says_its_encoder(file):
        network = build_encoder(model_as(file, name))
        load_exactly(network, backbone_of(file), origin=f"{file.path} as {name}")
        entry = replace(entry, picture=picture_of(file), clip=clip_shape_of(file))
    else:
        network = entry.build()
        _load(network, file, entry, name=name)
    return FrozenEncoder(name=name, table_name=name, origin=_origin_of(file), network=network.eval(), entry=entry)


def _with_weights(name: str, entry: EncoderEntry, weights: str | None) -> tuple[nn.Module, EncoderOrigin | None]:
    """The network with weights that are not in a file that the user names, and where they come from.

    Raises:
        UsageError: the weights are not named, or no public weights exist.
        HicoError: the weights cannot be obtained.

    """
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # so that the same name always gives the same encoder
            network = entry.build()
    elif weights == DEFAULT or (weights is None and entry.is_whole):
        network = _of_library(name, entry)
    else:
        raise UsageError(f"{name}: no weights given; write {name}=FILE{_other_weights(name, entry)}")
    state = network.state_dict()
    return network, EncoderOrigin(path=weights or "", sha256=hash_of_tensors(state)) if state else None


def _other_weights(name: str, entry: EncoderEntry) -> str:
    default = f", {name}={DEFAULT} for those of its library (may be downloaded)," if entry.pretrained else ""
    return f"{default} or {name}={RANDOM}"


def _of_library(name: str, entry: EncoderEntry) -> nn.Module:
    if entry.pretrained is None:
        if entry.is_whole:
            return entry.build()
        raise UsageError(f"{name}={DEFAULT}: has no public weights; write {name}=FILE")
    try:
        return entry.pretrained()
    except OSError as error:
        raise HicoError(f"{name}: the weights of its library cannot be obtained ({short_reason(error)})") from error


def _load(network: nn.Module, file: CheckpointFile, entry: EncoderEntry, *, name: str) -> None:
    """Load weights as they are published, possibly with a prefix in their names and with a classifier.

    Raises:
        HicoError: they belong to another network.

    """
    network = network.of_picture if isinstance(network, FrameByFrame) else network  # so that names match its library's
    state = weights_in(file.content, file.path)
    prefix = prefix_of_encoder(state, list(network.state_dict())[:1], name=name, origin=file.path)
    beyond = tuple(f"{part}." for part in entry.beyond)
    # The weights of a larger network may include all entries of this one, so no entry may be left over.
    found = {entry: value for entry, value in without_prefix(state, prefix).items() if not entry.startswith(beyond)}
    load_exactly(network, found, origin=f"{file.path} as {name}")
