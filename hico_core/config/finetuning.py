"""What a finetuning run is made of."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from hico_core.base.choices import NumCrops, PrecisionName
from hico_core.config.sections import AugmentConfig, DataConfig, TrainedEncoder, require_warmup_fits


class FinetuneModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is trained."""

    encoder: TrainedEncoder | None = None
    """Of which network the weights are that finetuning begins from; null: as their file says it."""


class FinetuneOptimConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Adam and its schedule."""

    base_lr: float = Field(0.001, gt=0)
    """Not scaled by anything."""
    weight_decay: float = Field(0.001, ge=0)
    """Of everything but batch norms."""
    warmup_epochs: float = Field(10, ge=0)
    warmup_start_lr: float = Field(0.00002, ge=0)


class FinetuneTrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is trained, how long and how much at a time."""

    tune: Literal["all", "head"] = "all"
    """Train encoder and classifier, or only the classifier (linear evaluation)."""
    statistics: Literal["frozen", "drift"] = "frozen"
    """Of the encoder's batch norms with `tune: head`: as pretrained, or following the new videos as the authors' do."""
    epochs: int = Field(300, ge=1)
    batch_size: int = Field(64, ge=2)
    """Videos a step."""
    max_steps: int | None = Field(None, ge=1)
    """End here, in the middle of the schedule."""
    seed: int = Field(0, ge=0, lt=2**63)
    precision: PrecisionName = "auto"
    """Of the encoder's arithmetic: `auto` takes bf16 where the hardware has it, else fp32. tf32: on GPUs, convolutions
    of float32 with 10 bits of each factor, which is what PyTorch does by itself."""
    eval_epochs: int = Field(10, ge=1)
    """Look at the videos for validation, if there are any, every so many epochs, and at the end."""
    checkpoint_seconds: float = Field(600.0, ge=0)
    """Write the last checkpoint at least this often."""


class FinetuneTestConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is looked at of each test video; the scores of all views are added."""

    views: int = Field(1, ge=1)
    """Clips, spread over the video."""
    crops: NumCrops = 1
    """Squares of each frame: the middle, or three along its longer side."""
    crop_part: float = Field(0.875, gt=0, le=1)
    """Side of such a square, as a part of the frame's shorter side."""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A whole finetuning run: a pretrained encoder learns classes from labelled videos."""

    dataset: str = "hmdb51"
    num_classes: int | None = Field(None, ge=2)
    """null: one more than the largest label."""
    model: FinetuneModelConfig = FinetuneModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    train: FinetuneTrainConfig = FinetuneTrainConfig()
    test: FinetuneTestConfig = FinetuneTestConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "FinetuneConfig":
        require_warmup_fits(self.optim.warmup_epochs, self.train.epochs)
        return self
