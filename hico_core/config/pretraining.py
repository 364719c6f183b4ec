"""The settings of a pretraining run."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from hico_core.base.choices import Dataset, PrecisionName, ZeroNorm
from hico_core.config.sections import AugmentConfig, DataConfig, ModelConfig, require_warmup_fits


class SamplingConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Where the clips of one video are drawn (HiCo, section 3)."""

    clips_per_video: int = Field(3, ge=2)
    """Clips drawn from each video."""
    distance: Literal["gradual", "fixed", "any"] = "gradual"
    """Largest distance between the centres of near clips: `gradual` grows from `start_seconds` to `end_seconds` during
    training, `fixed` is always `end_seconds`, `any` has no limit."""
    start_seconds: float = Field(0.0, ge=0)
    """Largest distance at the start of training."""
    end_seconds: float = Field(1.0, ge=0)
    """Largest distance at the end of training."""
    topical: bool = True
    """Draw the last clip from anywhere in the video, for the topical term."""


class LossConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """The loss: HiCo's two terms, or SimCLR's one."""

    name: Literal["hico", "simclr"] = "hico"
    """`hico`: visual and topical consistency; `simclr`: InfoNCE over all clips of a video."""
    temperature: float = Field(0.1, ge=0.02)
    """Temperature of the contrastive term, at least 0.02: sums of exp(1 / temperature) must fit into float32."""
    gamma: float = Field(0.5, ge=0)
    """Focusing parameter of the focal loss in the topical term."""
    visual_weight: float = Field(1.0, ge=0)
    """Weight of the visual term."""
    topical_weight: float = Field(1.0, ge=0)
    """Weight of the topical term."""
    topical_pairs: Literal["local", "global"] = "local"
    """Pairs in the topical term: clips of the same process, as in the authors' code, or clips of all processes."""


class OptimConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """The optimiser and its schedule."""

    name: Literal["lars", "adamw"] = "lars"
    """`lars` is the paper's optimiser, for large batches. `adamw` needs fewer steps with small batches; it ignores
    momentum, nesterov, eta and lars_*."""
    base_lr: float = Field(0.3, gt=0)
    """Peak learning rate for 256 clips per step; it is scaled with the number of clips."""
    scale_lr: Literal["global", "authors"] = "global"
    """Scale the learning rate with the clips per step over all processes, or, as the authors' code does, once more with
    the number of processes per machine."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of LARS."""
    nesterov: bool = True
    """Nesterov momentum."""
    weight_decay: float = Field(1e-6, ge=0)
    """Weight decay of all parameters except batch norms."""
    eta: float = Field(0.001, gt=0)
    """Trust coefficient of LARS."""
    lars_exclude_bn: bool = True
    """Exclude batch norms from the layer-wise scaling of LARS."""
    lars_zero_norm: ZeroNorm = "unscaled"
    """How LARS treats a tensor of norm 0: `authors` never updates it, `unscaled` uses trust ratio 1."""
    warmup_epochs: float = Field(5, ge=0)
    """Epochs in which the learning rate rises linearly to its peak; afterwards it follows a cosine to 0."""
    warmup_start_lr: float = Field(0.001, ge=0)
    """Learning rate at the first step, at most the peak; not scaled."""


class TrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Length of training, batch size, seed, precision and checkpoints."""

    epochs: int = Field(120, ge=1)
    """Passes over the videos."""
    batch_size: int = Field(32, ge=1)
    """Videos per step, over all processes."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many steps, even in the middle of the schedule; null: train all epochs."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of all randomness: initial weights, order of the videos, clips and augmentation."""
    precision: PrecisionName = "auto"
    """Precision of the encoder: `auto` uses bf16 where it is faster than fp32, fp16 (with loss scaling) on older GPUs
    with tensor cores, and fp32 elsewhere; `tf32` (GPUs only) lets float32 convolutions use TF32, PyTorch's default."""
    compile: bool = False
    """Compile the encoder with torch.compile: minutes at the start, possibly faster steps on a GPU."""
    recompute: bool = False
    """Gradient checkpointing: recompute activations in the backward pass; less memory, slower steps."""
    wandb_project: str | None = None
    """Weights & Biases project that also receives the metrics (needs the package wandb); null: none."""
    checkpoint_epochs: int = Field(10, ge=1)
    """Keep a checkpoint every `checkpoint_epochs` epochs, besides the most recent one."""
    checkpoint_seconds: float = Field(600.0, ge=0)
    """Write the most recent checkpoint at least this often, in seconds."""


class EvalConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """k-NN accuracy on labelled videos, measured during pretraining without affecting it."""

    knn_list: str | None = None
    """List of labelled videos, one `<path> <label>` per line, paths relative to the list; null: no measurement."""
    knn_neighbours: int = Field(20, ge=1)
    """Neighbours that vote."""
    knn_epochs: int = Field(10, ge=1)
    """Measure every `knn_epochs` epochs and at the end."""


class Config(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """A whole pretraining run."""

    dataset: Dataset = "hacs"
    """Dataset whose recipe this is; part of the run's default name."""
    recipe: str = "hico-s"
    """Name of the recipe; part of the run's default name."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        loss, sampling = self.loss, self.sampling
        if loss.name == "hico" and loss.visual_weight == loss.topical_weight == 0:
            raise ValueError("loss.visual_weight and loss.topical_weight are both 0: nothing would be learned")
        if loss.name == "hico" and loss.visual_weight > 0 and sampling.topical and sampling.clips_per_video < 3:
            raise ValueError(
                f"sampling.clips_per_video={sampling.clips_per_video} with sampling.topical: the last clip is far from "
                "the first, so no two clips are near; use 3 clips, or sampling.topical=false"
            )
        if sampling.distance == "gradual" and sampling.start_seconds > sampling.end_seconds:
            raise ValueError(
                f"sampling.start_seconds={sampling.start_seconds} is more than sampling.end_seconds="
                f"{sampling.end_seconds}: the distance of near clips must grow"
            )
        if self.train.compile and self.train.recompute:
            raise ValueError("train.compile and train.recompute do not work together; choose one")
        require_warmup_fits(self.optim.warmup_epochs, self.train.epochs)
        return self
