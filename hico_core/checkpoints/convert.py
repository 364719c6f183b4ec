"""Convert checkpoints to and from other formats: the authors' .pyth, safetensors, PyTorch's exported programs, ONNX."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from hico_core.base.choices import CheckpointFormat
from hico_core.base.errors import HicoError, counted, require_package
from hico_core.base.version import __version__
from hico_core.checkpoints.authors_names import export_state_dict, import_state_dict
from hico_core.checkpoints.content import (
    Content,
    LossScale,
    Progress,
    content_of,
    encoder_bytes,
    torch_file_bytes,
    write_bytes,
    write_checkpoint,
)
from hico_core.checkpoints.reading import (
    CheckpointFile,
    backbone_of,
    clip_shape_of,
    encoder_of,
    load_exactly,
    model_of,
    picture_of,
    read_checkpoint,
)
from hico_core.config import Config, ModelConfig, as_override, compose_config, one_or_three
from hico_core.config.authors.pretraining_keys import read_authors_values, to_authors_values
from hico_core.config.explain import first_wrong
from hico_core.data.plan import Position
from hico_core.model.classifier import CLASSIFIER
from hico_core.model.hico import HicoModel
from hico_core.model.parameters import parameter_groups

# Default format of a file by its suffix.
FORMAT_OF_SUFFIX: dict[str, CheckpointFormat] = {
    ".pt": "hico",
    ".pyth": "authors",
    ".safetensors": "safetensors",
    ".pt2": "exported",
    ".onnx": "onnx",
}

# Shapes (N, 3, T, H, W) of the clips used to compare a converted encoder with the original: the first is traced, the
# other shows that no size is fixed.
_SAMPLE_SHAPE = (2, 3, 16, 112, 112)
_OTHER_SHAPE = (1, 3, 24, 96, 128)

# An additional entry in files in the authors' format, for what their format cannot hold: with it, a run of hico can
# continue in the middle of an epoch.
_OURS = "hico"

# Largest difference of features, relative to the largest feature: several times the effect of rounding in 70 layers.
_TOLERANCE = 1e-4


def convert(source: Path, target: Path, *, to: CheckpointFormat) -> str:
    """Write a checkpoint in another format, atomically.

    Args:
        source: our checkpoint, our export or the authors' `.pyth`.
        target: the new file.
        to: its format. "hico" and "authors" hold a whole training state, the others only the encoder.

    Returns:
        A description of what was written.

    Raises:
        HicoError: the source cannot be read or lacks what the format requires, or the result gives other features.
        UsageError: a package is missing.

    """
    file = read_checkpoint(source)
    if to == "hico":
        ours = _hico_content(file)
        write_checkpoint(target, ours)
        return f"a checkpoint of hico, {ours.progress.epochs_done:g} epochs"
    if to == "authors":
        theirs = authors_content(file)
        write_bytes(target, torch_file_bytes(theirs))
        return f"a checkpoint in the authors' format, {counted(theirs['epoch'] + 1, 'whole epoch')}"
    if to == "safetensors":
        encoder = backbone_of(file)
        write_bytes(target, encoder_bytes(encoder, picture_of(file), clip_shape_of(file), model_of(file)))
        return f"the encoder, {len(encoder)} entries"
    backbone = encoder_of(file)
    about = _about_encoder(file)
    exported = _exported_program if to == "exported" else _onnx_program
    write_bytes(target, exported(backbone, about, target))
    return (
        "the encoder, (N, 3, T, H, W) to maps (N, F, T', H', W'), compared with the original at two sizes; the file "
        "records the input that it was trained on"
    )


def _about_encoder(file: CheckpointFile) -> dict[str, str]:
    """The facts needed to use the encoder without hico, chiefly how to make its input."""
    picture, clip = picture_of(file), clip_shape_of(file)
    return {
        "model": model_of(file).encoder,
        "hico_version": __version__,
        "num_frames": str(clip.num_frames),
        "fps": f"{clip.fps:g}",
        "size": str(picture.size),
        "mean": json.dumps(one_or_three(picture.mean)),
        "std": json.dumps(one_or_three(picture.std)),
    }


def authors_content(file: CheckpointFile) -> dict[str, Any]:
    """The content of the authors' checkpoint file, made from a checkpoint of ours.

    Raises:
        HicoError: ours is not a whole pretraining checkpoint, or of an encoder or optimiser that theirs cannot be of.

    """
    origin = file.path
    if "model" not in file.content or "optimizer" not in file.content:
        raise HicoError(f"{origin}: the authors' format needs a checkpoint of a run, not an export")
    checkpoint = content_of(file)
    if CLASSIFIER in checkpoint.model:
        raise HicoError(f"{origin}: is a finetuning checkpoint; the authors' format needs one of pretraining")
    config = compose_config(Config, checkpoint.config, origin=f"{origin}: its configuration")
    if config.optim.name != "lars":
        raise HicoError(
            f"{origin}: was trained with {config.optim.name}, which the authors' code does not have; only its "
            "encoder can be converted, to a .safetensors file"
        )
    _require_paper_s3dg(config.model, origin)
    return {
        "epoch": int(checkpoint.progress.epochs_done) - 1,
        "model_state": export_state_dict({name: value.contiguous() for name, value in checkpoint.model.items()}),
        "optimizer_state": _authors_optimizer(checkpoint.optimizer, config),
        "cfg": json.dumps(to_authors_values(config)),
        _OURS: {
            "progress": checkpoint.progress.model_dump(),
            "config": checkpoint.config,
            "scaling": checkpoint.scaling,
        },
    }


def _require_paper_s3dg(model: ModelConfig, origin: Path) -> None:
    """Check that an encoder is the only one that the authors' format can hold, since it names none.

    Raises:
        HicoError: it is not.

    """
    paper = ModelConfig().model_dump()
    others = [as_override(f"model.{key}", value) for key, value in model.model_dump().items() if value != paper[key]]
    if others:
        raise HicoError(
            f"{origin}: was trained with {', '.join(others)}, which the authors' format cannot say; only its encoder "
            "can be converted, to a .safetensors file"
        )


def _authors_optimizer(ours: dict[str, Any], config: Config) -> dict[str, Any]:
    """The state of the authors' optimiser, made from ours: the same groups, with parameters in the authors' order."""
    groups: list[dict[str, Any]] = []
    state: dict[int, dict[str, Tensor]] = {}
    # Theirs has one more group, for parameters that no model here has.
    for number, group in enumerate([*ours["param_groups"], {"params": [], "weight_decay": 0.0}]):
        indices = [len(state) + i for i in range(len(group["params"]))]
        for index, our_index in zip(indices, group["params"], strict=True):
            # A parameter that never had a gradient has no momentum yet.
            state[index] = {key: value.contiguous() for key, value in ours["state"].get(our_index, {}).items()}
        groups.append(
            {
                "weight_decay": group["weight_decay"],
                # Not all of their groups have the same keys.
                **({"lr_reduce": False} if number < 2 else {}),
                **({"lars_exclude": config.optim.lars_exclude_bn} if number == 0 else {}),
                "lr": ours["param_groups"][0]["lr"],
                "momentum": config.optim.momentum,
                "dampening": 0.0,
                "nesterov": config.optim.nesterov,
                "eta": config.optim.eta,
                "params": indices,
            }
        )
    return {"state": state, "param_groups": groups}


def _hico_content(file: CheckpointFile) -> Content:
    """The content of a checkpoint of ours, made from one of the authors'.

    A run continues from it at the next epoch, or, if theirs was made from one of ours, at the next step.

    Raises:
        HicoError: theirs is not a pretraining checkpoint.

    """
    content, origin = file.content, file.path
    if "model_state" not in content or "optimizer_state" not in content or not isinstance(content.get("cfg"), str):
        raise HicoError(f"{origin}: not a pretraining checkpoint of the authors (model_state, optimizer_state, cfg)")
    config, progress, scaling = _state_of_run(content, origin)
    model = HicoModel(topical=config.loss.name == "hico" and config.loss.topical_weight > 0)
    load_exactly(model, import_state_dict(content["model_state"]), origin=str(origin))
    groups = parameter_groups(
        model, weight_decay=config.optim.weight_decay, lars_exclude_bn=config.optim.lars_exclude_bn
    )
    theirs = content["optimizer_state"]
    state: dict[int, Any] = {}
    saved: list[dict[str, Any]] = []
    number = 0
    for ours, group in zip(groups, theirs["param_groups"], strict=False):
        if len(ours["names"]) != len(group["params"]):
            raise HicoError(
                f"{origin}: an optimiser group has {len(group['params'])} parameters, not {len(ours['names'])}"
            )
        indices = list(range(number, number + len(ours["names"])))
        # Their order within a group is that of their model, which equals ours (golden data, section 7).
        state |= {i: theirs["state"][j] for i, j in zip(indices, group["params"], strict=True) if j in theirs["state"]}
        saved.append(
            {
                **{key: value for key, value in ours.items() if key != "params"},
                "lr": group["lr"],
                "momentum": config.optim.momentum,
                "eta": config.optim.eta,
                "nesterov": config.optim.nesterov,
                "params": indices,
            }
        )
        number += len(indices)
    return Content(
        model=model.state_dict(),
        optimizer={"state": state, "param_groups": saved},
        scaling=scaling,
        progress=progress,
        config=config.model_dump(mode="json"),
    )


class _Ours(BaseModel, frozen=True):
    """The additional entry of hico in a file in the authors' format."""

    config: dict[str, Any]
    progress: Progress
    scaling: LossScale = {}  # files of early versions have none


def _state_of_run(content: dict[str, Any], origin: Path) -> tuple[Config, Progress, LossScale]:
    """The settings, the progress and the loss scaling of a run.

    Raises:
        HicoError: they cannot be read, or a run of hico cannot continue at the checkpoint's epoch.

    """
    if _OURS in content:
        try:
            ours = _Ours.model_validate(content[_OURS])
        except ValidationError as error:
            raise HicoError(f"{origin}: its entry {_OURS!r} is not as hico writes it ({first_wrong(error)})") from error
        config = compose_config(Config, ours.config, origin=f"{origin}: its entry {_OURS!r}")
        return config, ours.progress, ours.scaling
    try:
        settings = json.loads(content["cfg"])
    except ValueError as error:
        raise HicoError(f"{origin}: its settings (cfg) are not JSON ({error})") from error
    config = read_authors_values(settings, origin=str(origin)).config
    done = int(content["epoch"]) + 1
    if done % config.data.epochs_per_round:
        raise HicoError(
            f"{origin}: has {done} epochs, not a multiple of data.epochs_per_round={config.data.epochs_per_round}"
        )
    return (
        config,
        Progress(position=Position(step=0, epoch=done, batch=0), epochs_done=float(done), world_size=None),
        {},
    )


def _sample_clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_SAMPLE_SHAPE, generator=generator), torch.randn(_OTHER_SHAPE, generator=generator)


# The number of clips, the frames, the height and the width may vary.
_ANY_SIZE = (dict.fromkeys((0, 2, 3, 4), torch.export.Dim.DYNAMIC),)


def _exported_program(backbone: nn.Module, about: dict[str, str], path: Path) -> bytes:
    """The encoder in PyTorch's own program format, which runs without our code."""
    samples = _sample_clips()
    program = torch.export.export(backbone, samples[:1], dynamic_shapes=_ANY_SIZE)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"hico.json": json.dumps(about)})
    content.seek(0)
    loaded = torch.export.load(content).module()
    with torch.no_grad():
        for clips in samples:
            _require_equal(loaded(clips), backbone(clips), path)
    return content.getvalue()


def _onnx_program(backbone: nn.Module, about: dict[str, str], path: Path) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package, extra="onnx", wanted_by="--to onnx")
    import onnxruntime

    samples = _sample_clips()
    program = torch.onnx.export(
        backbone,
        samples[:1],
        dynamo=True,
        dynamic_shapes=_ANY_SIZE,
        input_names=["clips"],
        output_names=["features"],
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(about)
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for clips in samples:
            (features,) = session.run(None, {"clips": clips.numpy()})
            _require_equal(torch.from_numpy(features), backbone(clips), path)
    return content


def _require_equal(converted: Tensor, original: Tensor, path: Path) -> None:
    """Compare features of the same clips.

    Raises:
        HicoError: they differ by more than rounding.

    """
    difference = float((converted - original).abs().max() / original.abs().max().clamp(min=1e-12))
    if not difference <= _TOLERANCE:
        raise HicoError(
            f"{path}: the converted encoder differs by {difference:.2g} of the largest feature; not written"
        )
