"""Networks from Hugging Face's transformers as encoders: of clips, or of single frames."""

# N clips, T frames, S their side in pixels, F feature width, L tokens.

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from hico_core.base.errors import HicoError, UsageError, require_package, short_reason
from hico_core.data.pictures import ClipShape, Resize, public_picture
from hico_core.encoders.entry import EncoderEntry
from hico_core.encoders.pictures import CLIP_OF_PICTURES, FrameByFrame


class _Kind(NamedTuple):
    """How networks of a kind are used."""

    frames: str | None = None  # the configuration's name for the number of frames; None: an image network
    is_exact: bool = True  # no other number of frames is possible
    first_token: bool = False  # use the first token instead of the mean over all tokens
    options: Mapping[str, Any] = {}  # arguments of its forward


_KINDS = {
    "videomae": _Kind("num_frames"),
    "vjepa2": _Kind("frames_per_clip", is_exact=False, options={"skip_predictor": True}),
    "timesformer": _Kind("num_frames", first_token=True),
    "dinov2": _Kind(first_token=True),
    "dinov2_with_registers": _Kind(first_token=True),
    "dinov3_vit": _Kind(first_token=True),
}

# PIL's numbers, by which the settings name interpolations.
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}

# Frames per second used for Kinetics; the files do not record it.
_FPS = 7.5


class _Rows(nn.Module):
    """One row from a network's tokens."""

    def __init__(self, network: nn.Module, kind: _Kind) -> None:
        super().__init__()
        self.network, self._kind = network, kind

    def forward(self, shown: Tensor) -> Tensor:
        """Clips (N, 3, T, S, S), or pictures (N, 3, S, S) -> (N, F)."""
        given = shown.transpose(1, 2) if shown.dim() == 5 else shown
        tokens_NLF: Tensor = self.network(given, **self._kind.options).last_hidden_state
        return tokens_NLF[:, 0] if self._kind.first_token else tokens_NLF.mean(dim=1)


def _encoder(network: nn.Module, kind: _Kind) -> nn.Module:
    rows = _Rows(network, kind)
    return FrameByFrame(rows) if kind.frames is None else rows


def _random(config: Any, kind: _Kind) -> nn.Module:  # noqa: ANN401 - transformers has no types
    from transformers import AutoModel

    return _encoder(AutoModel.from_config(config), kind)


def _pretrained(where: str, kind: _Kind, options: Mapping[str, bool]) -> nn.Module:
    """The encoder with the weights of the folder.

    Raises:
        HicoError: some weights are missing.

    """
    from transformers import AutoModel

    network, loaded = AutoModel.from_pretrained(where, output_loading_info=True, **options)
    missing = sorted([*loaded["missing_keys"], *loaded["mismatched_keys"]], key=str)
    if missing:
        raise HicoError(f"hf:{where}: has no weights for {missing[0]}; {len(missing)} such entries")
    return _encoder(network, kind)


def transformers_entry(where: str, *, download: bool) -> EncoderEntry:
    """The entry of a folder saved by transformers, or of a network on its hub; code in it is never run.

    Args:
        where: the folder, or the network's ID on the hub.
        download: allow downloading from the hub.

    Raises:
        UsageError: transformers is not installed, or the folder does not exist and nothing may be downloaded.
        HicoError: transformers cannot read it, or its kind is not supported.

    """
    require_package("transformers", extra="hf", wanted_by=f"hf:{where}")
    if not download and not Path(where).is_dir():
        raise UsageError(f"hf:{where}: no such folder; to download it from the hub, write hf:{where}=DEFAULT")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    options = {"local_files_only": not download, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(where, **options)
        kind = _KINDS.get(config.model_type)
        if kind is None:
            raise HicoError(
                f"hf:{where}: is of the unsupported type {config.model_type}; supported are {', '.join(_KINDS)}"
            )
        has_video = config.model_type == "vjepa2"
        reader = transformers.AutoVideoProcessor if has_video else transformers.AutoImageProcessor
        shown = reader.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise HicoError(f"hf:{where}: cannot be read by transformers ({short_reason(error)})") from error
    num_frames = getattr(config, kind.frames) if kind.frames else None
    size = shown.crop_size["height"] if shown.do_center_crop else shown.size["height"]
    return EncoderEntry(
        build=partial(_random, config, kind),
        pretrained=partial(_pretrained, where, kind, options),
        is_whole=not download,
        picture=public_picture(_resize(shown), size=size, mean=tuple(shown.image_mean), std=tuple(shown.image_std)),
        clip=ClipShape(num_frames, _FPS) if num_frames else CLIP_OF_PICTURES,
        shortest_window=num_frames if num_frames and kind.is_exact else getattr(config, "tubelet_size", 1),
        longest_window=num_frames if kind.is_exact else None,
        feature_dim=config.hidden_size,
        gives="rows",
        trains=False,
        licence="Apache-2.0",
    )


def _resize(shown: Any) -> Resize:  # noqa: ANN401 - transformers has no types
    """The scaling that an image processor applies to pictures."""
    interpolation: Any = _INTERPOLATIONS[int(shown.resample)]
    short_side = shown.size.get("shortest_edge")
    if short_side:
        return Resize(short_side, None, interpolation, antialias=True)
    return Resize(shown.size["height"], shown.size["width"], interpolation, antialias=True)
