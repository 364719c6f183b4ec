"""The settings of a finetuning run."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from hico_core.base.choices import NumCrops, PrecisionName
from hico_core.config.sections import AugmentConfig, DataConfig, TrainedEncoder, require_warmup_fits


class FinetuneModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """The encoder that is finetuned."""

    encoder: TrainedEncoder | None = None
    """Network to which the initial weights belong; null: the one that their file names."""


class FinetuneOptimConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Adam and its schedule."""

    base_lr: float = Field(0.001, gt=0)
    """Peak learning rate; it does not depend on the batch size."""
    weight_decay: float = Field(0.001, ge=0)
    """Weight decay of all parameters except batch norms."""
    warmup_epochs: float = Field(10, ge=0)
    """Epochs in which the learning rate rises linearly to its peak; afterwards it follows a cosine to 0."""
    warmup_start_lr: float = Field(0.00002, ge=0)
    """Learning rate at the first step, at most the peak."""


class FinetuneTrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Parts to train, length of training, batch size, seed, precision and checkpoints."""

    tune: Literal["all", "head"] = "all"
    """Train encoder and classifier, or only the classifier (linear evaluation)."""
    statistics: Literal["frozen", "drift"] = "frozen"
    """Batch-norm statistics of the encoder with `tune: head`: as pretrained, or updated on the new videos as in the
    authors' code."""
    epochs: int = Field(300, ge=1)
    """Passes over the videos."""
    batch_size: int = Field(64, ge=2)
    """Videos per step, over all processes."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many steps, even in the middle of the schedule; null: train all epochs."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of all randomness: the classifier's weights, order of the videos, clips and augmentation."""
    precision: PrecisionName = "auto"
    """Precision of the encoder: `auto` uses bf16 where it is faster than fp32, fp16 (with loss scaling) on older GPUs
    with tensor cores, and fp32 elsewhere; `tf32` (GPUs only) lets float32 convolutions use TF32, PyTorch's default."""
    eval_epochs: int = Field(10, ge=1)
    """Evaluate on the validation videos, if there are any, every `eval_epochs` epochs and at the end."""
    checkpoint_seconds: float = Field(600.0, ge=0)
    """Write the most recent checkpoint at least this often, in seconds."""


class FinetuneTestConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Views of each test video; the scores of all views are added."""

    views: int = Field(1, ge=1)
    """Clips per video, evenly spread over it."""
    crops: NumCrops = 1
    """Square crops per frame: the centre one, or three along the longer side."""
    crop_part: float = Field(0.875, gt=0, le=1)
    """Side of a crop, as a fraction of the frame's shorter side."""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """A whole finetuning run: a pretrained encoder learns classes from labelled videos."""

    dataset: str = "hmdb51"
    """Name of the dataset; part of the run's default name."""
    num_classes: int | None = Field(None, ge=2)
    """Number of classes; null: one more than the largest label."""
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
