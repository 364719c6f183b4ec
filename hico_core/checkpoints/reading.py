"""Read checkpoints, ours and the authors': safely, with checks, and only the requested parts."""

import hashlib
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hico_core.base.choices import EncoderName
from hico_core.base.errors import HicoError, UsageError, short_reason
from hico_core.checkpoints.authors_names import ALIAS, import_state_dict
from hico_core.config import AugmentConfig, DataConfig, ModelConfig
from hico_core.data.pictures import ClipShape, Picture, clip_shape_for, picture_for
from hico_core.encoders.python_function import PYTHON
from hico_core.encoders.trained import build_encoder
from hico_core.model.heads import ProjectionHead

logger = logging.getLogger(__name__)

# Keys under which checkpoints keep their weights; without such a key, the weights are the whole file.
_WEIGHTS = ("model_state", "model", "state_dict")

# The beginning of a file in PyTorch's old format: its magic number, pickled.
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Entries that only one encoder has; they identify the encoder in files that do not name it.
_MARKS: dict[str, EncoderName] = {"Conv_1a.conv1.weight": "s3dg", "units.0.0.conv1.weight": "s3dg-tiny"}

# Metadata key under which an export names its encoder: a `ModelConfig` as JSON.
ENCODER_SETTINGS = "hico_model"

# Prefixes of the names of an encoder's weights in our own files and the authors'.
OWN_PREFIXES = ("", "backbone.")

# Prefixes that frameworks and contrastive methods add to names; positions in a sequence (`0`) occur as well.
_WRAPPERS = frozenset({"module", "_orig_mod", "model", "encoder", "encoder_q", "backbone"})


class CheckpointFile(NamedTuple):
    """A checkpoint as it was when it was read; a training run may replace the file at any moment."""

    path: Path
    sha256: str  # of the file
    content: dict[str, Any]  # its top level
    metadata: dict[str, str]  # of a safetensors file


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a whole file once; only tensors and plain values are ever unpickled.

    Raises:
        HicoError: the file cannot be read, is damaged, or has weights that are not finite.

    """
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as opened:
            # Checked before the whole file is read, which may be a film of 50 GB.
            if path.suffix != ".safetensors" and not _is_torch_file(opened):
                raise HicoError(f"{path}: not a checkpoint (no PyTorch file)")
            opened.seek(0)
            written = opened.read()
        if path.suffix == ".safetensors":
            content, metadata = _parse_safetensors(written, path)
        else:
            content = _parse_torch_file(written, path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; name a file, such as export/encoder.safetensors of a run") from None
    except pickle.UnpicklingError as error:
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({_in_the_way(written, error)})") from error
    except (OSError, SafetensorError, RuntimeError, zipfile.BadZipFile) as error:
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({short_reason(error)})") from error
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, IndexError, OverflowError, MemoryError) as error:
        # Unpickling raises these errors if bytes are not what they claim to be.
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise HicoError(f"{path}: contains a {type(content).__name__}, not a checkpoint")
    for name, value in weights_in(content, path).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise HicoError(f"{path}: {name} has values that are not finite; the training that wrote it has failed")
    return CheckpointFile(path, hashlib.sha256(written).hexdigest(), content, metadata)


def _is_torch_file(opened: BinaryIO) -> bool:
    """Whether torch.save wrote the file: a zip file, or, before 2020, a pickle, like some of torchvision's weights."""
    return zipfile.is_zipfile(opened) or (opened.seek(0) == 0 and opened.read(len(_OLD_FORMAT)) == _OLD_FORMAT)


def _parse_torch_file(written: bytes, path: Path) -> Any:  # noqa: ANN401 - whatever stands in it
    # PyTorch writes the checksums of a zip file but does not check them.
    damaged = None
    if not written.startswith(_OLD_FORMAT):
        with zipfile.ZipFile(io.BytesIO(written)) as parts:
            damaged = parts.testzip()
    if damaged is not None:
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({damaged} is damaged)")
    return with_own_memory(torch.load(io.BytesIO(written), map_location="cpu", weights_only=True))


def with_own_memory(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a checkpoint
    """The same dictionaries and lists of tensors and plain values, with no tensor being a view of a larger memory.

    Pickling a view would include the whole memory behind it, once for each view.
    """
    if isinstance(value, Tensor):
        return value.detach().clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, dict):
        return {key: with_own_memory(item) for key, item in value.items()}
    return [with_own_memory(item) for item in value] if isinstance(value, list) else value


def _in_the_way(written: bytes, error: pickle.UnpicklingError) -> str:
    """A message that names the objects of a PyTorch file that only running its code could read, and the remedy."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(written)))
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, IndexError, EOFError):
        names = []
    if not names:  # there is no such object, so the bytes are not what they claim to be
        return type(error).__name__
    return (
        f"besides tensors, it contains {', '.join(names)}; if you trust it, save its weights alone: load it with "
        "torch.load(FILE, weights_only=False) and torch.save the dictionary of tensors"
    )


def _parse_safetensors(written: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file."""
    tensors = safetensors.torch.load(written)
    length_of_header = int.from_bytes(written[:8], "little")
    metadata: dict[str, str] = json.loads(written[8 : 8 + length_of_header]).get("__metadata__", {})
    hashed = metadata.get("sha256")  # only hico's exports have it
    if hashed is not None and hashed != hash_of_tensors(tensors):
        raise HicoError(f"{path}: not a checkpoint that can be read safely (its weights do not match their hash)")
    return tensors, metadata


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a model, whichever key the format keeps them under.

    Raises:
        HicoError: the key holds something else.

    """
    state = next((content[key] for key in _WEIGHTS if key in content), content)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise HicoError(f"{path}: contains no weights where a checkpoint has them")
    if state is not content and not all(isinstance(value, Tensor) for value in state.values()):
        raise HicoError(f"{path}: contains no weights where a checkpoint has them")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def model_of(file: CheckpointFile) -> ModelConfig:
    """The encoder that a file holds: as the file says or, for the authors' files and bare weights, by its entries.

    Raises:
        HicoError: it holds no known encoder.

    """
    try:
        said = _said_model(file)
        if said is not None:
            return ModelConfig(**said)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HicoError(f"{file.path}: its encoder settings are invalid ({type(error).__name__})") from error
    state = weights_in(file.content, file.path)
    prefix = prefix_of_encoder(state, (*_MARKS, ALIAS), name="S3D-G", origin=file.path)
    encoder = next((name for mark, name in _MARKS.items() if prefix + mark in state), "s3dg")
    gates = any(name.startswith(prefix) and ".gating_" in name for name in state)
    return ModelConfig(encoder=encoder, gating=gates or encoder != "s3dg")


def model_as(file: CheckpointFile, name: str) -> ModelConfig:
    """The settings of an encoder that a user names, as in a file of hico; other files say nothing about it.

    Raises:
        UsageError: the file says that it holds another encoder; a user's function may have been renamed.
        HicoError: its encoder settings are invalid.

    """
    if not says_its_encoder(file):
        return ModelConfig(encoder=name)
    model = model_of(file)
    if model.encoder != name and not (model.encoder.startswith(PYTHON) and name.startswith(PYTHON)):
        raise UsageError(f"{file.path}: contains the weights of {model.encoder}, not of {name}")
    return model.model_copy(update={"encoder": name})


def says_its_encoder(file: CheckpointFile) -> bool:
    """Whether a file names its encoder, as all files do that hico writes in training."""
    return ENCODER_SETTINGS in file.metadata or str(file.content.get("format")).startswith("hico-")


def _said_model(file: CheckpointFile) -> dict[str, Any] | None:
    """The encoder named in an export's metadata, a checkpoint's settings or a finetuning checkpoint's progress."""
    if ENCODER_SETTINGS in file.metadata:
        said: dict[str, Any] = json.loads(file.metadata[ENCODER_SETTINGS])
        return said
    began_from = file.content.get("progress", {}).get("encoder")
    return (began_from or file.content.get("config", {})).get("model")


def backbone_of(file: CheckpointFile) -> dict[str, Tensor]:
    """The encoder's weights in a checkpoint of ours, an export, a .pyth file of the authors or bare weights.

    Raises:
        HicoError: it holds no known encoder.

    """
    state = weights_in(file.content, file.path)
    if "format" in file.content:
        prefix = "backbone."
    elif ENCODER_SETTINGS in file.metadata:
        prefix = ""
    else:
        prefix = prefix_of_encoder(state, (*_MARKS, ALIAS), name="S3D-G", origin=file.path)
    backbone = without_prefix(state, prefix)
    if prefix in OWN_PREFIXES:
        return backbone
    own = build_encoder(model_of(file)).state_dict().keys()
    if left_out := sorted(backbone.keys() - own):
        logger.warning("%s: ignored %d entries not in the encoder, such as %s", file.path, len(left_out), left_out[0])
    return {name: value for name, value in backbone.items() if name in own}


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries with a prefix, with the prefix removed; entries of the authors' containers get our names."""
    backbone = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if ALIAS not in backbone:
        return backbone
    theirs = import_state_dict({f"backbone.{name}": value for name, value in backbone.items()})
    return {name.removeprefix("backbone."): value for name, value in theirs.items()}


def prefix_of_encoder(state: Mapping[str, Tensor], marks: Sequence[str], *, name: str, origin: Path) -> str:
    """The prefix of the names of an encoder's weights, such as `module.encoder_q.0.`.

    Args:
        state: the entries of a file.
        marks: names of entries, one of which the encoder has.
        name: name of the encoder.
        origin: the file.

    Raises:
        HicoError: there is no encoder, there are several, or the prefix is not known.

    """
    found = [name.removesuffix(mark) for name in state for mark in marks if name == mark or name.endswith(f".{mark}")]
    found = list(dict.fromkeys(found))
    if not found:
        first = f", but {next(iter(state))}" if state else ""
        raise HicoError(
            f"{origin}: contains no {name} encoder (no entry {marks[0]}{first}); name its encoder: NAME=FILE or, "
            "in training, -o model.encoder=NAME"
        )
    known = [
        prefix for prefix in found if all(part.isdecimal() or part in _WRAPPERS for part in prefix.split(".")[:-1])
    ]
    if len(known) == 1:
        return known[0]
    which = f"an encoder with the prefix {found[0]!r}"
    if known:
        which = f"several encoders, with the prefixes {' and '.join(map(repr, known))}"
    raise HicoError(f"{origin}: contains {which}; save the weights of one without the prefix")


def load_backbone(path: Path | str) -> nn.Module:
    """Load the encoder of a checkpoint, in evaluation mode.

    Args:
        path: our checkpoint (.pt), our export (.safetensors) or the authors' .pyth, pretrained or finetuned.

    Raises:
        HicoError: the file cannot be read, or its entries are not exactly those of an encoder.

    """
    return encoder_of(read_checkpoint(Path(path)))


def encoder_of(file: CheckpointFile) -> nn.Module:
    """The encoder of a file that was read; see `load_backbone`.

    Raises:
        HicoError: the file holds no encoder, or its entries are not exactly those of an encoder.

    """
    backbone = untrained_encoder_of(file)
    load_exactly(backbone, backbone_of(file), origin=str(file.path))
    return backbone.eval()


def untrained_encoder_of(file: CheckpointFile) -> nn.Module:
    """The encoder that a file holds, but with random weights.

    Raises:
        HicoError: the file holds no encoder, or a user's function: a file never decides which code is run.

    """
    model = model_of(file)
    if model.encoder.startswith(PYTHON):
        raise HicoError(
            f"{file.path}: its encoder is {model.encoder}, code that runs only if you name it: "
            f"{model.encoder}={file.path} or -o model.encoder={model.encoder} in training"
        )
    return build_encoder(model)


def projection_of(file: CheckpointFile) -> ProjectionHead:
    """The visual head of a pretraining checkpoint, ours or the authors', in evaluation mode: (N, F) -> (N, D).

    Raises:
        HicoError: the file has no such head, like exports and finetuned models.

    """
    theirs = file.content.get("model_state")
    state = file.content.get("model", {})
    if theirs is not None:
        state = import_state_dict({name: value for name, value in theirs.items() if name.startswith("head.mlp")})
    prefix = "visual_head."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not own.keys() >= {"linear1.weight", "linear3.weight"}:
        raise HicoError(
            f"{file.path}: has no projection head; give a checkpoint of pretraining, such as "
            "runs/NAME/checkpoints/last.pt"
        )
    hidden_dim, in_dim = own["linear1.weight"].shape
    head = ProjectionHead(in_dim, hidden_dim, len(own["linear3.weight"]))
    load_exactly(head, own, origin=str(file.path))
    return head.eval()


def picture_of(file: CheckpointFile) -> Picture:
    """How frames became the input of a checkpoint's encoder in training; as in the paper if the file does not say.

    Raises:
        HicoError: the file describes an impossible input.

    """
    return picture_for(*_settings_of_encoder(file))


def clip_shape_of(file: CheckpointFile) -> ClipShape:
    """The clips that the encoder of a checkpoint was trained on; see `picture_of`."""
    return clip_shape_for(_settings_of_encoder(file)[0])


def _settings_of_encoder(file: CheckpointFile) -> tuple[DataConfig, AugmentConfig]:
    """The training settings that determine an encoder's input; defaults replace those that the file lacks."""
    content = file.content
    data: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    try:
        if file.path.suffix == ".safetensors":
            picture, clip = (json.loads(file.metadata.get(name, "{}")) for name in ("picture", "clip"))
            data = {"crop_size": picture.get("size"), "num_frames": clip.get("num_frames")}
            if "fps" in clip:
                data |= {"target_fps": clip["fps"], "frame_stride": 1}
            augment = picture
        elif "config" in content:
            data, augment = content["config"].get("data", {}), content["config"].get("augment", {})
        elif isinstance(content.get("cfg"), str):
            theirs = json.loads(content["cfg"]).get("DATA", {})
            data = {
                "crop_size": theirs.get("TRAIN_CROP_SIZE"),
                "num_frames": theirs.get("NUM_INPUT_FRAMES"),
                "frame_stride": theirs.get("SAMPLING_RATE"),
                "target_fps": theirs.get("TARGET_FPS"),
            }
            augment = {"mean": theirs.get("MEAN"), "std": theirs.get("STD")}
        return (
            DataConfig(**_given(data, "crop_size", "num_frames", "frame_stride", "target_fps")),
            AugmentConfig(**_given(augment, "mean", "std")),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise HicoError(f"{file.path}: its encoder's input settings are invalid ({type(error).__name__})") from error


def _given(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: said[name] for name in names if said.get(name) is not None}


def load_exactly(module: torch.nn.Module, state: dict[str, Tensor], *, origin: str) -> None:
    """Like `load_state_dict`, but loads everything or nothing, and reports in one line what does not fit.

    Raises:
        HicoError: an entry is missing, left over or has another shape.

    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not in the model" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        raise HicoError(f"{origin}: does not fit the model: {problems[0]}; {len(problems)} such entries")
    module.load_state_dict(state)
