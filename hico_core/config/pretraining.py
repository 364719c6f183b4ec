"""What a pretraining run is made of."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from hico_core.base.choices import Dataset, PrecisionName, ZeroNorm
from hico_core.config.sections import AugmentConfig, DataConfig, ModelConfig, require_warmup_fits


class SamplingConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the clips of one video lie to each other (HiCo, section 3)."""

    clips_per_video: int = Field(3, ge=2)
    distance: Literal["gradual", "fixed", "any"] = "gradual"
    """Of near clips' centres: growing with training, always `end_seconds`, or anywhere in the video."""
    start_seconds: float = Field(0.0, ge=0)
    end_seconds: float = Field(1.0, ge=0)
    topical: bool = True
    """The last clip is drawn anywhere in the video, far from the others."""


class LossConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """HiCo's two terms, or SimCLR's one."""

    name: Literal["hico", "simclr"] = "hico"
    temperature: float = Field(0.1, gt=0)
    gamma: float = Field(0.5, ge=0)
    visual_weight: float = Field(1.0, ge=0)
    topical_weight: float = Field(1.0, ge=0)
    topical_pairs: Literal["local", "global"] = "local"
    """Pairs of the topical term: of each process's own clips, as the authors do, or of all processes' clips."""


class OptimConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The optimiser and its schedule."""

    name: Literal["lars", "adamw"] = "lars"
    """LARS is the paper's, for large batches. AdamW learns from small ones in fewer steps; of momentum, nesterov, eta
    and lars_* it takes nothing."""
    base_lr: float = Field(0.3, gt=0)
    """For 256 clips a step; scaled by the real number of clips."""
    scale_lr: Literal["global", "authors"] = "global"
    """By the clips of a step over all processes, or, as the authors' code, by that times the processes of a machine."""
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(1e-6, ge=0)
    """Of everything but batch norms."""
    eta: float = Field(0.001, gt=0)
    lars_exclude_bn: bool = True
    lars_zero_norm: ZeroNorm = "unscaled"
    """A tensor of norm 0 never moves (`authors`), or has trust ratio 1."""
    warmup_epochs: float = Field(5, ge=0)
    warmup_start_lr: float = Field(0.001, ge=0)
    """Not scaled."""


class TrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How long, how much at a time, from which seed."""

    epochs: int = Field(120, ge=1)
    batch_size: int = Field(32, ge=1)
    """Videos a step, over all processes."""
    max_steps: int | None = Field(None, ge=1)
    """End here, in the middle of the schedule."""
    seed: int = Field(0, ge=0, lt=2**63)
    precision: PrecisionName = "auto"
    """Of the encoder's arithmetic: `auto` takes bf16 where the hardware has it, else fp32. tf32: on GPUs, convolutions
    of float32 with 10 bits of each factor, which is what PyTorch does by itself."""
    compile: bool = False
    """Let torch.compile fuse the encoder: minutes at the start, faster steps on a GPU."""
    recompute: bool = False
    """Gradient checkpointing: keep less of the forward pass and compute it again; less memory, slower steps."""
    wandb_project: str | None = None
    """Send the metrics to this project of Weights & Biases as well (the package wandb); null: nothing is sent."""
    checkpoint_epochs: int = Field(10, ge=1)
    """Keep a checkpoint every so many epochs, besides the last."""
    checkpoint_seconds: float = Field(600.0, ge=0)
    """Write the last one at least this often."""


class EvalConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is measured with labels while training goes on without them."""

    knn_list: str | None = None
    """`<path> <label>` a line, paths seen from the list's folder; null: nothing is measured."""
    knn_neighbours: int = Field(20, ge=1)
    knn_epochs: int = Field(10, ge=1)
    """Measure every so many epochs, and at the end."""


class Config(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A whole pretraining run."""

    dataset: Dataset = "hacs"
    recipe: str = "hico-s"
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
                "the first, so no two clips are near; take 3 clips, or sampling.topical=false"
            )
        if sampling.distance == "gradual" and sampling.start_seconds > sampling.end_seconds:
            raise ValueError(
                f"sampling.start_seconds={sampling.start_seconds} is more than sampling.end_seconds="
                f"{sampling.end_seconds}: the distance of near clips grows"
            )
        if self.train.compile and self.train.recompute:
            raise ValueError("train.compile and train.recompute do not work together; choose one")
        require_warmup_fits(self.optim.warmup_epochs, self.train.epochs)
        return self
