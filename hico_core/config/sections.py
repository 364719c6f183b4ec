"""Sections that pretraining and finetuning have in common: frozen, and refusing nonsense."""

import difflib
import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from hico_core.base.cache import LocalCache, local_cache
from hico_core.base.choices import DecoderName, EncoderName


def _that_trains(name: str) -> str:
    """An encoder's name, if it is of one that trains here.

    Raises:
        ValueError: it is none.

    """
    if name not in get_args(EncoderName) and not re.fullmatch(r"python:[\w.]+:\w+", name):
        (near,) = difflib.get_close_matches(name, get_args(EncoderName), n=1, cutoff=0)
        raise ValueError(f"no encoder that trains; the nearest is {near}, and python:package.module:function is yours")
    return name


TrainedEncoder = Annotated[str, AfterValidator(_that_trains)]


class ModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The encoder that is trained; the heads follow from the width of its features."""

    encoder: TrainedEncoder = "s3dg"
    """The paper's s3dg; s3dg-tiny, of 0.2 million parameters, for tests and experiments; torchvision:NAME of r3d_18,
    mc3_18, r2plus1d_18 or s3d; or python:package.module:function, which returns a torch.nn.Module."""
    gating: bool = True
    """Of s3dg: scale channels by learned gates; without them it is plain S3D, as torchvision's s3d."""
    norm_eps: float | None = Field(None, gt=0)
    """Epsilon of all batch norms of the encoder; null: as the network has it."""

    @model_validator(mode="after")
    def _gates_of_s3dg(self) -> "ModelConfig":
        if not self.gating and self.encoder != "s3dg":
            raise ValueError(f"model.gating=false: only s3dg has gates, not {self.encoder}")
        return self


class DataConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Which frames make a clip, and how they are read."""

    num_frames: int = Field(16, ge=8)
    frame_stride: int = Field(4, ge=1)
    """Frames at `target_fps` from one frame of a clip to the next."""
    target_fps: float = Field(30.0, gt=0)
    crop_size: int = Field(112, ge=16)
    """Height and width of a clip, in pixels."""
    decoder: DecoderName = "auto"
    short_side: int | None = Field(256, ge=32)
    """Larger pictures are scaled down to this before they are cropped; null: cropped as they are."""
    cache_dir: str | None = None
    """Where copies of files from buckets are kept; null: ~/.cache/hico."""
    cache_gb: float = Field(20.0, gt=0)
    """What they may take."""
    memory_gb: float = Field(0.0, ge=0)
    """Decoded frames that each reading process keeps: spares decoding a small corpus again in every epoch."""
    workers: int | None = Field(None, ge=0)
    """Processes that read clips; 0 reads in the training process, null: one a core, shared by processes that train."""
    cuts: Literal["ignore", "respect"] = "ignore"
    """`respect`: clips near each other lie within one shot, where a video has one as long as a clip."""
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    """The run ends when more than this part of the videos cannot be decoded."""
    epochs_per_round: int = Field(10, ge=1)
    """Passes over the videos that the loader joins, so that less is left over."""

    @property
    def cache(self) -> LocalCache:
        """Through which files in buckets are read."""
        return local_cache(self.cache_dir, round(self.cache_gb * 1e9))

    @property
    def span_seconds(self) -> float:
        """What a clip covers of a video; shorter videos are left out of pretraining."""
        return self.num_frames * self.frame_stride / self.target_fps


# Of red, green and blue.
Channels = tuple[float, float, float]


def one_or_three(channels: Channels) -> float | Channels:
    """How settings and files write values of channels: once where they are alike."""
    return channels[0] if len(set(channels)) == 1 else channels


_Positive = Annotated[float, Field(gt=0)]


class AugmentConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One draw for all frames of a clip."""

    crop_jitter: tuple[int, int] = (168, 224)
    """Sides whose squares, as parts of a 256 x 340 frame, bound the area of the crop."""
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest ratio of the crop's width to its height."""
    colour_probability: float = Field(0.8, ge=0, le=1)
    brightness: float = Field(0.8, ge=0)
    contrast: float = Field(0.8, ge=0)
    saturation: float = Field(0.8, ge=0)
    hue: float = Field(0.2, ge=0, le=0.5)
    grey_probability: float = Field(0.2, ge=0, le=1)
    grey_first: bool = False
    """Before the other colours are changed, so that those of a grey clip can only get lighter or darker."""
    blur: Literal["authors", "gaussian"] = "authors"
    """`authors`: as in their code, whose kernel is one pixel wide, so that nothing is blurred."""
    blur_probability: float = Field(0.5, ge=0, le=1)
    flip_probability: float = Field(0.5, ge=0, le=1)
    mean: float | Channels = 0.45
    """Of red, green and blue, from 0 to 1: one value for all three, or one each, as public weights have it."""
    std: _Positive | tuple[_Positive, _Positive, _Positive] = 0.225

    @property
    def channel_means(self) -> Channels:
        """What is subtracted from red, green and blue."""
        return self.mean if isinstance(self.mean, tuple) else (self.mean, self.mean, self.mean)

    @property
    def channel_stds(self) -> Channels:
        """What they are divided by then."""
        return self.std if isinstance(self.std, tuple) else (self.std, self.std, self.std)

    @field_validator("crop_jitter", "crop_ratio")
    @classmethod
    def _smaller_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller one first")
        return value


def require_warmup_fits(warmup_epochs: float, epochs: int) -> None:
    """Check two settings of different sections.

    Raises:
        ValueError: the warm-up is longer than the training.

    """
    if warmup_epochs > epochs:
        raise ValueError(
            f"optim.warmup_epochs={warmup_epochs:g} is longer than train.epochs={epochs}; --epochs changes both"
        )
