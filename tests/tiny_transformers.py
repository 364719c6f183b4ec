"""Networks of transformers that are tiny, in folders as transformers saves them."""

from pathlib import Path
from typing import Any

import torch

_SMALL = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 24}
_PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
_CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}

# Its configuration and what prepares its pictures, by the names that transformers has for them.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "videomae": ("VideoMAEConfig", {**_SMALL, "num_frames": 4, "intermediate_size": 32}, "VideoMAEImageProcessor"),
    "vjepa2": ("VJEPA2Config", {**_SMALL, **_PREDICTOR, "crop_size": 32, "frames_per_clip": 4}, "VJEPA2VideoProcessor"),
    "timesformer": ("TimesformerConfig", {**_SMALL, "num_frames": 4}, "VideoMAEImageProcessor"),
    "dinov2": ("Dinov2Config", _SMALL, "BitImageProcessor"),
}


def save(folder: Path, kind: str) -> Any:  # noqa: ANN401 - transformers has no types
    """A folder as transformers saves it, and the network that is in it."""
    import transformers

    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    config, settings, reader = KINDS[kind]
    network = transformers.AutoModel.from_config(getattr(transformers, config)(**settings))
    network.save_pretrained(folder)
    getattr(transformers, reader)(**_CROP).save_pretrained(folder)
    return network.eval()
