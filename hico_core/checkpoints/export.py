"""The export of a run, written with its checkpoints: the encoder, and a model card that describes it and its use."""

import hashlib
from pathlib import Path

from torch import nn

from hico_core.base.version import __version__
from hico_core.checkpoints.content import Progress, encoder_bytes
from hico_core.config import Config
from hico_core.data.pictures import clip_shape_for, picture_for

# Path of the exported encoder in the folder of a run.
ENCODER = Path("export", "encoder.safetensors")

# Model hubs display a file of this name.
CARD = "README.md"

_HOW_TO_USE_IT = """```python
from hico_core import FeatureExtractor, load_backbone

encoder = load_backbone("encoder.safetensors")  # a torch.nn.Module in evaluation mode
features = FeatureExtractor.from_checkpoint("encoder.safetensors").extract("video.mp4")
```

`hico extract-features --encoder encoder.safetensors VIDEOS` writes the features of many videos. Training does not
measure how good they are; `hico probe`, `hico compare` and `hico retrieve` do. All settings of the run are in its
config.yaml.
"""


def exports(
    backbone: nn.Module, path: Path, config: Config, progress: Progress, *, feature_dim: int, loss: float | None
) -> dict[Path, bytes]:
    """Path -> content of the current encoder and of its card; an existing card stays if nothing was trained since.

    Args:
        backbone: the encoder.
        path: path of the export, RUN/export/encoder.safetensors; the card is titled with the run's name.
        config: configuration of the run.
        progress: progress of the run.
        feature_dim: channels of the encoder's feature maps.
        loss: mean over the last steps; None if this call trained no step.

    """
    encoder = encoder_bytes(
        backbone.state_dict(), picture_for(config.data, config.augment), clip_shape_for(config.data), config.model
    )
    if loss is None and _digest(encoder) in (card_of(path) or ""):
        return {path: encoder}
    card = model_card(
        path.absolute().parents[1].name,
        config=config,
        progress=progress,
        encoder=encoder,
        feature_dim=feature_dim,
        num_parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        loss=loss,
    )
    return {path: encoder, path.with_name(CARD): card.encode()}


def model_card(
    run_name: str,
    *,
    config: Config,
    progress: Progress,
    encoder: bytes,
    feature_dim: int,
    num_parameters: int,
    loss: float | None,
) -> str:
    """The model card of an exported encoder, in Markdown.

    Args:
        run_name: name of the run.
        config: configuration of the run.
        progress: progress of the run.
        encoder: content of the encoder's file.
        feature_dim: channels of the encoder's feature maps.
        num_parameters: number of the encoder's parameters.
        loss: mean over the last steps; None if this call trained no step.

    """
    clip, size = clip_shape_for(config.data), config.data.crop_size
    rows = {
        "encoder": f"{config.model.encoder}, {num_parameters / 1e6:.2f} M parameters",
        "trained with": f"hico {__version__}, recipe {config.dataset}-{config.recipe}, without labels",
        "videos": "not known" if progress.index is None else f"{progress.index.num_videos}",
        "steps": f"{progress.position.step}",
        "batch size": f"{config.train.batch_size} videos, {config.sampling.clips_per_video} clips each",
        "epochs": f"{progress.epochs_done:.6g} of {config.train.epochs}",
        "loss": f"{config.loss.name}" + ("" if loss is None else f", mean of the last steps {loss:.4f}"),
        "input": f"(N, 3, {clip.num_frames}, {size}, {size}): {clip.num_frames} frames at {clip.fps:g} per second, RGB "
        f"from 0 to 1, minus {config.augment.mean}, divided by {config.augment.std}",
        "output": f"(N, {feature_dim}, t, h, w); the mean over t, h, w is the feature",
        "SHA-256 of encoder.safetensors": _digest(encoder),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# {run_name}: {config.model.encoder}

A video encoder pretrained with HiCo (Qing et al., *Learning from Untrimmed Videos: Self-Supervised Video Representation
Learning with Hierarchical Consistency*, CVPR 2022).

| | |
|---|---|
{table}

{_HOW_TO_USE_IT}"""


def card_of(encoder: Path) -> str | None:
    """The card beside an export, if it describes exactly this file."""
    card = encoder.with_name(CARD)
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    return text if _digest(encoder.read_bytes()) in text else None


def _digest(encoder: bytes) -> str:
    return hashlib.sha256(encoder).hexdigest()
