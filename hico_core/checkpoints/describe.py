"""Describe a checkpoint file, and check whether its weights look sound."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import content_of
from hico_core.checkpoints.export import card_of
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.checkpoints.reading import (
    CheckpointFile,
    clip_shape_of,
    model_of,
    picture_of,
    read_checkpoint,
    untrained_encoder_of,
    weights_in,
)
from hico_core.data.pictures import ClipShape, Picture
from hico_core.encoding.cost import measure_cost
from hico_core.model.classifier import CLASSIFIER


class Description(NamedTuple):
    """The description of a checkpoint for users."""

    kind: str
    facts: dict[str, Any]
    warnings: list[str]
    card: str | None = None  # the model card of an export


def describe_checkpoint(path: Path) -> Description:
    """Describe a checkpoint of ours, an export or a `.pyth` file of the authors.

    Raises:
        HicoError: the file cannot be read, or holds no weights.

    """
    file = read_checkpoint(path)
    content = file.content
    if "model_state" in content:
        kind, state = _kind_of_authors(content), content["model_state"]
        facts: dict[str, Any] = {"entries": len(state)}
        if isinstance(content.get("epoch"), int):
            facts = {"whole epochs done": content["epoch"] + 1, **facts}
    elif "format" in content:
        checkpoint = content_of(file)
        state, config, progress = checkpoint.model, checkpoint.config, checkpoint.progress
        finetuned = CLASSIFIER in state
        kind = "hico finetuning checkpoint" if finetuned else "hico checkpoint"
        facts = {
            "hico version": checkpoint.hico_version,
            "recipe": f"finetune-{config['dataset']}" if finetuned else f"{config['dataset']}-{config['recipe']}",
            "step": progress.position.step,
            "epochs done": round(progress.epochs_done, 2),
            "processes": progress.world_size or "not known",
            "videos that could not be decoded": len(progress.bad_videos),
        }
        if progress.index is not None:
            facts["videos trained on"] = progress.index.num_videos
        if progress.encoder is not None:
            facts["began from"] = progress.encoder.path
    else:
        kind, state = "encoder", weights_in(content, path)
        facts = {}
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise HicoError(f"{path}: contains no weights")
    # Aliases of the authors' files share memory with the plain names.
    distinct = {value.untyped_storage().data_ptr(): value for value in weights.values()}
    trained = [value for value in distinct.values() if value.is_floating_point()]
    facts["parts"] = ", ".join(sorted({name.split(".")[0] for name in weights}))
    facts["numbers"] = sum(value.numel() for value in trained)
    facts["bytes"] = sum(value.nbytes for value in distinct.values())
    facts |= _cost_of(file)
    return Description(kind, facts, _warnings(weights), card_of(path))


def describe_encoder(encoder: FrozenEncoder) -> Description:
    """Describe an encoder of the table: its weights, input, output and cost."""
    entry = encoder.entry
    facts = {
        "weights": encoder.weights or ("none" if encoder.origin is None else "its own"),
        "SHA-256 of the weights": encoder.sha256,
        "frames per window": f"{entry.shortest_window} or more"
        if entry.longest_window is None
        else entry.longest_window,
        "picture": ", ".join(f"{name} {value}" for name, value in entry.picture.fields.items()),
        "gives": f"{entry.gives} of {entry.feature_dim}",
        "can be trained": "yes" if entry.trains else "no",
        "licence of the code": entry.licence,
        **_facts_of_cost(encoder.network, entry.picture, entry.clip),
    }
    return Description("encoder", facts, [])


def _cost_of(file: CheckpointFile) -> dict[str, Any]:
    """The cost of the encoder on clips like those of its training; empty for a file without an encoder."""
    try:
        encoder = untrained_encoder_of(file)
        picture, clip = picture_of(file), clip_shape_of(file)
    except HicoError:
        return {}
    return {"encoder": model_of(file).encoder, **_facts_of_cost(encoder, picture, clip)}


def _facts_of_cost(encoder: nn.Module, picture: Picture, clip: ClipShape) -> dict[str, Any]:
    cost = measure_cost(encoder, num_frames=clip.num_frames, size=picture.size)
    return {
        "encoder parameters": cost.parameters,
        "a clip or view": " x ".join(map(str, cost.clip)),
        "GFLOPs per clip": round(cost.gflops_per_clip, 2),
        "frames per second": round(clip.fps, 3),
        "MB of activations per clip": round(cost.activation_mb_per_clip, 1),
        f"clips/s here ({cost.device}, without gradients)": round(cost.clips_per_second, 1),
    }


def _kind_of_authors(content: dict[str, Any]) -> str:
    heads = {name.split(".")[1] for name in content["model_state"] if name.startswith("head.")}
    if "mlp_tcl" in heads:
        return "authors' HiCo pretraining checkpoint"
    if "mlp" in heads:
        return "authors' SimCLR pretraining checkpoint"
    return "authors' finetuning checkpoint"


def _warnings(weights: dict[str, Tensor]) -> list[str]:
    found = []
    biases = [value for name, value in weights.items() if ".bn" in name and name.endswith(".bias")]
    if biases and all(not bias.any() for bias in biases):
        found.append(
            "all batch-norm biases are 0, as is normal after training with LARS as the authors use it "
            "(optim.lars_exclude_bn=false, lars_zero_norm=authors)"
        )
    return found
