"""Sections that pretraining and finetuning share: frozen and validated."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from hico_core.base.cache import LocalCache, local_cache
from hico_core.base.choices import DecoderName, EncoderName


def _that_trains(name: str) -> str:
    """Check that a name is that of an encoder that hico can train.

    Raises:
        ValueError: it is not.

    """
    if name not in get_args(EncoderName) and not re.fullmatch(r"python:[\w.]+:\w+", name):
        raise ValueError(
            f"not a trainable encoder; these are {', '.join(get_args(EncoderName))} and your own, as "
            "python:package.module:function"
        )
    return name


TrainedEncoder = Annotated[str, AfterValidator(_that_trains)]


class ModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """The encoder that is trained; the heads follow from the width of its features."""

    encoder: TrainedEncoder = "s3dg"
    """`s3dg`: the paper's encoder, 9 million parameters; `s3dg-tiny`: 0.2 million, for CPUs and experiments;
    `torchvision:NAME` with r3d_18, mc3_18, r2plus1d_18 or s3d; `python:package.module:function`: a function that
    returns a torch.nn.Module."""
    gating: bool = True
    """Feature gating of `s3dg`; without it, the network is plain S3D, as in torchvision."""
    norm_eps: float | None = Field(None, gt=0)
    """Epsilon of all batch norms of the encoder; null: the network's own."""

    @model_validator(mode="after")
    def _gates_of_s3dg(self) -> "ModelConfig":
        if not self.gating and self.encoder != "s3dg":
            raise ValueError(f"model.gating=false: only s3dg has gating, not {self.encoder}")
        return self


class DataConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Which frames make up a clip, and how they are read."""

    num_frames: int = Field(16, ge=8)
    """Frames per clip."""
    frame_stride: int = Field(4, ge=1)
    """Distance between neighbouring frames of a clip, in frames at `target_fps`."""
    target_fps: float = Field(30.0, gt=0)
    """Frame rate in which `frame_stride` is counted; a clip covers num_frames * frame_stride / target_fps seconds."""
    crop_size: int = Field(112, ge=16)
    """Height and width of a clip, in pixels."""
    decoder: DecoderName = "auto"
    """Library that decodes the videos; `auto` is PyAV. The others exist for comparison."""
    short_side: int | None = Field(256, ge=32)
    """Frames with a longer short side are scaled down to this many pixels before cropping; null: never."""
    cache_dir: str | None = None
    """Folder for local copies of files in buckets; null: ~/.cache/hico."""
    cache_gb: float = Field(20.0, gt=0)
    """Largest size of that folder, in GB."""
    memory_gb: float = Field(0.0, ge=0)
    """Memory in which each worker keeps decoded frames, so that a small corpus is not decoded again in every epoch."""
    workers: int | None = Field(None, ge=0)
    """Processes that read clips; 0: the training process reads them itself; null: one per core, shared between
    training processes."""
    cuts: Literal["ignore", "respect"] = "ignore"
    """`respect`: draw near clips from the same shot, if the video has a shot that is as long as a clip."""
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    """Training stops when more than this fraction of the videos cannot be decoded."""
    epochs_per_round: int = Field(10, ge=1)
    """Epochs that the loader runs as one, so that fewer videos are left over at the end of an epoch."""

    @property
    def cache(self) -> LocalCache:
        """The local cache for files in buckets."""
        return local_cache(self.cache_dir, round(self.cache_gb * 1e9))

    @property
    def span_seconds(self) -> float:
        """Seconds of video that a clip covers; shorter videos are left out of pretraining."""
        return self.num_frames * self.frame_stride / self.target_fps


# Values for red, green and blue.
Channels = tuple[float, float, float]


def one_or_three(channels: Channels) -> float | Channels:
    """The values of the channels as written in settings and files: a single number if all are equal."""
    return channels[0] if len(set(channels)) == 1 else channels


_Positive = Annotated[float, Field(gt=0)]


class AugmentConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Augmentation; all frames of a clip are augmented in the same way."""

    crop_jitter: tuple[int, int] = (168, 224)
    """Bounds of the crop's area: squares with these sides, relative to a frame of 256 x 340 pixels."""
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest ratio of the crop's width to its height."""
    colour_probability: float = Field(0.8, ge=0, le=1)
    """Probability of colour jitter."""
    brightness: float = Field(0.8, ge=0)
    """Strength of the brightness jitter: a factor from 1 - x to 1 + x."""
    contrast: float = Field(0.8, ge=0)
    """Strength of the contrast jitter: a factor from 1 - x to 1 + x."""
    saturation: float = Field(0.8, ge=0)
    """Strength of the saturation jitter: a factor from 1 - x to 1 + x."""
    hue: float = Field(0.2, ge=0, le=0.5)
    """Largest hue shift in either direction, as a fraction of the colour circle."""
    grey_probability: float = Field(0.2, ge=0, le=1)
    """Probability that a clip is converted to greyscale."""
    grey_first: bool = False
    """Convert to greyscale before the colour jitter, which then changes only the brightness of grey clips."""
    blur: Literal["authors", "gaussian"] = "authors"
    """`authors`: as in their code, whose kernel is one pixel wide and blurs nothing; `gaussian`: a real blur."""
    blur_probability: float = Field(0.5, ge=0, le=1)
    """Probability of blur."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    mean: float | Channels = 0.45
    """Mean subtracted from pixel values between 0 and 1: one number for all channels, or three (red, green, blue)."""
    std: _Positive | tuple[_Positive, _Positive, _Positive] = 0.225
    """Standard deviation by which pixel values are divided: one number, or three."""

    @property
    def channel_means(self) -> Channels:
        """The means subtracted from red, green and blue."""
        return self.mean if isinstance(self.mean, tuple) else (self.mean, self.mean, self.mean)

    @property
    def channel_stds(self) -> Channels:
        """The standard deviations by which red, green and blue are divided."""
        return self.std if isinstance(self.std, tuple) else (self.std, self.std, self.std)

    @field_validator("crop_jitter", "crop_ratio")
    @classmethod
    def _smaller_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller one first")
        return value


def require_warmup_fits(warmup_epochs: float, epochs: int) -> None:
    """Check that the warm-up is not longer than the training; the two settings are in different sections.

    Raises:
        ValueError: it is longer.

    """
    if warmup_epochs > epochs:
        raise ValueError(
            f"optim.warmup_epochs={warmup_epochs:g} is longer than train.epochs={epochs}; change both (`hico pretrain` "
            "and `hico finetune` do with --epochs)"
        )
