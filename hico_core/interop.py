"""The authors' checkpoints <-> ours.

Their file (`checkpoint_epoch_NNNNN.pyth`) holds the weights under `model_state`. The encoder's units have our
names there, and each stands a second time inside a sequential container (`backbone.block3.1` is
`backbone.Mixed_3b`), so about half of the entries are aliases. The heads have other names than ours.
"""

import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from hico_core.authors_config import read_authors_config as read_authors_config
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import Picture, picture_for
from hico_core.errors import HicoError
from hico_core.model.s3dg import S3DG

logger = logging.getLogger(__name__)

# Their containers, in order; a pooling layer has no weights but takes a place.
_CONTAINERS = {
    "block1": ("Conv_1a",),
    "block2": ("MaxPool_2a", "Conv_2b", "Conv_2c"),
    "block3": ("MaxPool_3a", "Mixed_3b", "Mixed_3c"),
    "block4": ("MaxPool_4a", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    "block5": ("MaxPool_5a", "Mixed_5b", "Mixed_5c"),
}
_UNIT_OF_ALIAS = {f"{block}.{i}": unit for block, units in _CONTAINERS.items() for i, unit in enumerate(units)}
_UNITS = frozenset(_UNIT_OF_ALIAS.values())

_PROJECTION_LAYERS = {
    "linear_a": "linear1",
    "linear_a_bn": "bn1",
    "linear_b": "linear2",
    "linear_b_bn": "bn2",
    "logits_out_b2": "linear3",
}
# Their prefix -> ours, and the names of the layers below it.
_HICO_HEADS = {
    "head.mlp_vcl": ("visual_head", _PROJECTION_LAYERS),
    "head.mlp_tcl.mlp": ("topic_head.projection", _PROJECTION_LAYERS),
    "head.mlp_tcl.topical_predictor": ("topic_head", {"0": "pair", "2": "score"}),
}
_SIMCLR_HEADS = {"head.mlp": ("visual_head", _PROJECTION_LAYERS)}


def _layer_names(heads: dict[str, tuple[str, dict[str, str]]]) -> dict[str, str]:
    """Their layer -> our layer, whole names: `head.mlp_vcl.linear_a` -> `visual_head.linear1`."""
    return {
        f"{theirs}.{their_layer}": f"{ours}.{our_layer}"
        for theirs, (ours, layers) in heads.items()
        for their_layer, our_layer in layers.items()
    }


_OUR_LAYER = _layer_names(_HICO_HEADS) | _layer_names(_SIMCLR_HEADS)


def _our_name(authors_name: str) -> str | None:
    """The name of an entry in a HicoModel, or None where it has no such entry."""
    layer, _, tensor = authors_name.rpartition(".")
    if layer in _OUR_LAYER:
        return f"{_OUR_LAYER[layer]}.{tensor}"
    if not authors_name.startswith("backbone."):
        return None
    first, _, rest = authors_name.removeprefix("backbone.").partition(".")
    if first in _CONTAINERS:
        place, _, rest = rest.partition(".")
        first = _UNIT_OF_ALIAS.get(f"{first}.{place}", "")
    return f"backbone.{first}.{rest}" if first in _UNITS else None


def import_state_dict(authors_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint of the authors' HiCo or SimCLR model for a `HicoModel`.

    Plain names, container names or both may be there. Where both are and disagree, the container's value
    is taken, as in the authors' code, and the log says so.

    Raises:
        HicoError: an entry has no place in a HicoModel.

    """
    state: dict[str, Tensor] = {}
    containers_last = sorted(authors_state, key=lambda name: name.startswith("backbone.block"))
    for authors_name in containers_last:
        ours = _our_name(authors_name)
        if ours is None:
            raise HicoError(f"not a HiCo pretraining checkpoint: it has an entry {authors_name!r}")
        value = authors_state[authors_name]
        if ours in state and not torch.equal(state[ours], value):
            logger.warning("%s differs from its plain name; its value is taken", authors_name)
        state[ours] = value
    return state


def export_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a `HicoModel`'s state to the authors' names, aliases included, in the authors' order.

    Raises:
        HicoError: an entry is not one of a HicoModel with the paper's parts.

    """
    topical = any(name.startswith("topic_head.") for name in state)
    exported: dict[str, Tensor] = {}
    for block, units in _CONTAINERS.items():
        for container in (False, True):
            for place, unit in enumerate(units):
                prefix = f"backbone.{unit}."
                target = f"backbone.{block}.{place}." if container else prefix
                for name, value in state.items():
                    if name.startswith(prefix):
                        exported[target + name.removeprefix(prefix)] = value
    num_backbone = sum(name.startswith("backbone.") for name in state)
    if len(exported) != 2 * num_backbone:
        raise HicoError("the authors' format holds an S3D-G encoder; this state has other backbone entries")

    for name, value in state.items():
        if not name.startswith("backbone."):
            exported[authors_name(name, topical=topical)] = value
    return exported


def authors_name(name: str, *, topical: bool) -> str:
    """The authors' plain name of an entry of a `HicoModel`, with or without a topical head.

    Raises:
        HicoError: their models have no such entry.

    """
    if name.startswith("backbone."):
        return name
    their_layer = {ours: theirs for theirs, ours in _layer_names(_HICO_HEADS if topical else _SIMCLR_HEADS).items()}
    layer, _, tensor = name.rpartition(".")
    if layer not in their_layer:
        raise HicoError(f"the authors' format has no place for {name!r}")
    return f"{their_layer[layer]}.{tensor}"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The file's top level. Nothing but tensors and plain values is ever unpickled.

    Raises:
        HicoError: the file cannot be read, is damaged, or has weights that are no numbers.

    """
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch_file(path)
    except FileNotFoundError:
        raise HicoError(f"{path}: no such checkpoint") from None
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({reason})") from error
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, IndexError, OverflowError, MemoryError) as error:
        # What unpickling raises where bytes are not what they claim to be.
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise HicoError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    for name, value in _weights_in(content, path).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise HicoError(f"{path}: {name} has values that are no numbers; the training behind it has failed")
    return content


def _read_torch_file(path: Path) -> object:
    if path.exists() and not zipfile.is_zipfile(path):  # what torch.save has written since 2020
        raise HicoError(f"{path}: not a checkpoint (no PyTorch file)")
    # PyTorch writes the checksums of a zip file and does not look at them.
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise HicoError(f"{path}: not a checkpoint that can be read safely ({damaged} is damaged)")
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    tensors = dict(load_file(path))
    with safe_open(path, framework="pt") as opened:
        written = (opened.metadata() or {}).get("sha256")  # only hico's exports have it
    if written is not None and written != hash_of_tensors(tensors):
        raise HicoError(f"{path}: not a checkpoint that can be read safely (its weights do not match their hash)")
    return tensors


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a model, under whatever key a format keeps them.

    Raises:
        HicoError: there is something else under that key.

    """
    state = content.get("model_state", content.get("model", content))
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise HicoError(f"{path}: holds no weights where a checkpoint has them")
    if state is not content and not all(isinstance(value, Tensor) for value in state.values()):
        raise HicoError(f"{path}: holds no weights where a checkpoint has them")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def read_backbone_state(path: Path | str) -> dict[str, Tensor]:
    """The encoder's weights in a checkpoint of ours, a safetensors export or a .pyth file of the authors.

    Raises:
        HicoError: the file cannot be read or holds no S3D-G.

    """
    path = Path(path)
    content = read_checkpoint(path)
    return backbone_of(content, origin=str(path))


def backbone_of(content: dict[str, Any], *, origin: str) -> dict[str, Tensor]:
    """The encoder's weights in what a checkpoint holds; see `read_backbone_state`.

    Raises:
        HicoError: it holds no S3D-G.

    """
    if "model_state" in content:
        theirs = content["model_state"]
        state = import_state_dict({name: value for name, value in theirs.items() if name.startswith("backbone.")})
    elif "model" in content:
        state = content["model"]
    else:
        state = {f"backbone.{name}": value for name, value in content.items() if isinstance(value, Tensor)}
    backbone = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    if "Conv_1a.conv1.weight" not in backbone:
        raise HicoError(f"{origin}: holds no S3D-G encoder (no entry Conv_1a.conv1.weight)")
    return backbone


def load_backbone(path: Path | str) -> S3DG:
    """The encoder of a checkpoint, in evaluation mode.

    Args:
        path: our checkpoint (.pt), our export (.safetensors) or the authors' .pyth, pretrained or finetuned.

    Raises:
        HicoError: the file cannot be read, or its entries are not exactly those of an S3D-G.

    """
    return load_encoder(path)[0]


def load_encoder(path: Path | str) -> tuple[S3DG, Picture]:
    """The encoder of a checkpoint, as `load_backbone`, and what it was trained to see."""
    path = Path(path)
    content = read_checkpoint(path)
    state = backbone_of(content, origin=str(path))
    backbone = S3DG(gating=any(".gating_" in name for name in state))
    load_exactly(backbone, state, origin=str(path))
    return backbone.eval(), read_picture(path, content)


def read_picture(path: Path, content: dict[str, Any]) -> Picture:
    """What the encoder of a checkpoint was trained to see; what the paper's saw, where the file does not say.

    Args:
        path: the file.
        content: from `read_checkpoint`.

    Raises:
        HicoError: the file says something that cannot be.

    """
    said: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                said = json.loads((opened.metadata() or {}).get("picture", "{}"))
        elif "config" in content:
            data, augment = content["config"]["data"], content["config"]["augment"]
            said = {"size": data["crop_size"], "mean": augment["mean"], "std": augment["std"]}
        elif isinstance(content.get("cfg"), str):
            theirs = json.loads(content["cfg"])["DATA"]
            said = {"size": theirs["TRAIN_CROP_SIZE"], "mean": theirs["MEAN"][0], "std": theirs["STD"][0]}
        known = {name: said[name] for name in ("size", "mean", "std") if name in said}
        data_config = DataConfig(**({"crop_size": known.pop("size")} if "size" in known else {}))
        return picture_for(data_config, AugmentConfig(**known))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise HicoError(f"{path}: does not say rightly what its encoder sees ({type(error).__name__})") from error


def load_exactly(module: torch.nn.Module, state: dict[str, Tensor], *, origin: str) -> None:
    """`load_state_dict` that takes all or nothing and says in one line what does not fit.

    Raises:
        HicoError: an entry is missing, left over or of another shape.

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
