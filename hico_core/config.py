"""What a pretraining run is made of: frozen sections that refuse nonsense, and the recipes as presets.

A run's configuration is a preset (hico_core/presets/*.yaml), then a YAML file, then `key=value` overrides; later
wins. A preset or file says only what differs from what its `base:` names, or from the defaults below.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from hico_core.errors import UsageError

Dataset = Literal["hacs", "uk400", "k400"]

Schema = TypeVar("Schema", bound=BaseModel)

# What the names of presets begin with that are not of pretraining.
_FINETUNING = "finetune-"


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Which frames make a clip, and how they are read."""

    num_frames: int = Field(16, ge=8)
    frame_stride: int = Field(4, ge=1)
    """Frames at `target_fps` from one frame of a clip to the next."""
    target_fps: float = Field(30.0, gt=0)
    crop_size: int = Field(112, ge=32)
    """Height and width of a clip, in pixels."""
    decoder: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    short_side: int | None = Field(256, ge=32)
    """Larger pictures are scaled down to this before they are cropped; null: cropped as they are."""
    cache_dir: str | None = None
    """Where copies of files from buckets are kept; null: ~/.cache/hico."""
    cache_gb: float = Field(20.0, gt=0)
    """What they may take."""
    workers: int | None = Field(None, ge=0)
    """Processes that read clips; 0 reads in the training process, null takes one a core, at most 8."""
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    """The run ends when more than this part of the videos cannot be decoded."""
    epochs_per_round: int = Field(10, ge=1)
    """Passes over the videos that the loader joins, so that less is left over."""


class SamplingConfig(BaseModel, frozen=True, extra="forbid"):
    """How the clips of one video lie to each other (HiCo, section 3)."""

    clips_per_video: int = Field(3, ge=2)
    distance: Literal["gradual", "fixed", "any"] = "gradual"
    """Of near clips' centres: growing with training, always `end_seconds`, or anywhere in the video."""
    start_seconds: float = Field(0.0, ge=0)
    end_seconds: float = Field(1.0, ge=0)
    topical: bool = True
    """The last clip is drawn anywhere in the video, far from the others."""


class AugmentConfig(BaseModel, frozen=True, extra="forbid"):
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
    mean: float = 0.45
    std: float = Field(0.225, gt=0)

    @field_validator("crop_jitter", "crop_ratio")
    @classmethod
    def _smaller_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller one first")
        return value


class LossConfig(BaseModel, frozen=True, extra="forbid"):
    """HiCo's two terms, or SimCLR's one."""

    name: Literal["hico", "simclr"] = "hico"
    temperature: float = Field(0.1, gt=0)
    gamma: float = Field(0.5, ge=0)
    visual_weight: float = Field(1.0, ge=0)
    topical_weight: float = Field(1.0, ge=0)
    topical_pairs: Literal["local", "global"] = "local"
    """Pairs of the topical term: of each process's own clips, as the authors do, or of all processes' clips."""


class OptimConfig(BaseModel, frozen=True, extra="forbid"):
    """LARS and its schedule."""

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
    lars_zero_norm: Literal["authors", "unscaled"] = "unscaled"
    """A tensor of norm 0 never moves (`authors`), or has trust ratio 1."""
    warmup_epochs: float = Field(5, ge=0)
    warmup_start_lr: float = Field(0.001, ge=0)
    """Not scaled."""


class TrainConfig(BaseModel, frozen=True, extra="forbid"):
    """How long, how much at a time, from which seed."""

    epochs: int = Field(120, ge=1)
    batch_size: int = Field(32, ge=1)
    """Videos a step, over all processes."""
    max_steps: int | None = Field(None, ge=1)
    """End here, in the middle of the schedule."""
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the encoder's arithmetic: `auto` takes bf16 where the hardware has it."""
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


class EvalConfig(BaseModel, frozen=True, extra="forbid"):
    """What is measured with labels while training goes on without them."""

    knn_list: str | None = None
    """`<path> <label>` a line, paths seen from the list's folder; null: nothing is measured."""
    knn_neighbours: int = Field(20, ge=1)
    knn_epochs: int = Field(10, ge=1)
    """Measure every so many epochs, and at the end."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """A whole pretraining run."""

    dataset: Dataset = "hacs"
    recipe: str = "hico-s"
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
        _require_warmup_fits(self.optim.warmup_epochs, self.train.epochs)
        return self


def _require_warmup_fits(warmup_epochs: float, epochs: int) -> None:
    if warmup_epochs > epochs:
        raise ValueError(
            f"optim.warmup_epochs={warmup_epochs:g} is longer than train.epochs={epochs}; --epochs changes both"
        )


class FinetuneOptimConfig(BaseModel, frozen=True, extra="forbid"):
    """Adam and its schedule."""

    base_lr: float = Field(0.001, gt=0)
    """Not scaled by anything."""
    weight_decay: float = Field(0.001, ge=0)
    """Of everything but batch norms."""
    warmup_epochs: float = Field(10, ge=0)
    warmup_start_lr: float = Field(0.00002, ge=0)


class FinetuneTrainConfig(BaseModel, frozen=True, extra="forbid"):
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
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the encoder's arithmetic: `auto` takes bf16 where the hardware has it."""
    eval_epochs: int = Field(10, ge=1)
    """Look at the videos for validation, if there are any, every so many epochs, and at the end."""
    checkpoint_seconds: float = Field(600.0, ge=0)
    """Write the last checkpoint at least this often."""


class FinetuneTestConfig(BaseModel, frozen=True, extra="forbid"):
    """What is looked at of each test video; the scores of all views are added."""

    views: int = Field(1, ge=1)
    """Clips, spread over the video."""
    crops: Literal[1, 3] = 1
    """Squares of each frame: the middle, or three along its longer side."""
    crop_part: float = Field(0.875, gt=0, le=1)
    """Side of such a square, as a part of the frame's shorter side."""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid"):
    """A whole finetuning run: a pretrained encoder learns classes from labelled videos."""

    dataset: str = "hmdb51"
    num_classes: int | None = Field(None, ge=2)
    """null: one more than the largest label."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    train: FinetuneTrainConfig = FinetuneTrainConfig()
    test: FinetuneTestConfig = FinetuneTestConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "FinetuneConfig":
        _require_warmup_fits(self.optim.warmup_epochs, self.train.epochs)
        return self


def _flat_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys that can be set, dotted."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _flat_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _explain(error: ValidationError, schema: type[BaseModel], origin: str) -> UsageError:
    """The first problem of a configuration in one line."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        inner = problem["input"]
        while isinstance(inner, dict) and inner:  # a wrong section: the whole key says more than its first part
            path.append(str(next(iter(inner))))
            inner = inner[path[-1]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, _flat_keys(schema), n=1, cutoff=0)
        return UsageError(f"{origin}: unknown key {key}; the nearest known key is {near[0]}")
    if not key:
        return UsageError(f"{origin}: {problem['msg'].removeprefix('Value error, ')}")
    return UsageError(f"{origin}: {key} cannot be {problem['input']!r}: {problem['msg']}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Sections merged key by key; anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(text: str, origin: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{origin}: must be sections with keys, not a {type(content).__name__}")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """`optim.base_lr=0.1` -> {"optim": {"base_lr": 0.1}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"-o {text}: must be key=value, for example -o optim.base_lr=0.1")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"-o {text}: the value is not YAML ({' '.join(str(error).split())})") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _with_base(
    values: dict[str, Any], *, folder: Path | None, origin: str, trail: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Put a file's values over those of its `base:`, a preset or, where it has a folder, a file seen from there.

    Raises:
        UsageError: there is no such base, or it leads back to itself.

    """
    values = dict(values)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UsageError(f"{origin}: base must be the name of a recipe or a file, not {base!r}")
    if base in trail:
        raise UsageError(f"{origin}: base leads in a circle: {' -> '.join([*trail, base])}")
    if base in _presets():
        below, folder_below = _read_yaml(_presets()[base], f"preset {base}"), None
    elif folder is not None and (folder / base).is_file():
        below, folder_below = read_yaml_file(folder / base), (folder / base).parent
    else:
        raise UsageError(
            f"{origin}: base {base}: no such recipe or file; the recipes are {', '.join(sorted(_presets()))}"
        )
    below = _with_base(below, folder=folder_below, origin=base, trail=(*trail, base))
    return merge(below, values)


def read_yaml_file(path: Path) -> dict[str, Any]:
    """The sections of a YAML file.

    Raises:
        UsageError: it cannot be read, or holds something else.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read ({reason})") from error
    return _read_yaml(text, str(path))


@cache
def _presets() -> dict[str, str]:
    """Name -> YAML text of each preset."""
    folder = resources.files("hico_core") / "presets"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def preset_names() -> list[str]:
    """The recipes of pretraining: dataset-recipe."""
    return sorted(name for name in _presets() if not name.startswith(_FINETUNING))


def finetuning_preset_names() -> list[str]:
    """The recipes of finetuning: finetune-dataset."""
    return sorted(name for name in _presets() if name.startswith(_FINETUNING))


def default_recipe(dataset: Dataset) -> str:
    """The recipe of a dataset that `hico pretrain` takes if none is named."""
    return "hico-s" if dataset == "hacs" else "hico-l"


def _preset_values(name: str) -> dict[str, Any]:
    if name not in _presets():
        alike = finetuning_preset_names() if name.startswith(_FINETUNING) else preset_names()
        raise UsageError(f"no recipe {name}; there are: {', '.join(alike)}")
    return _with_base({"base": name}, folder=None, origin=f"preset {name}")


def preset(name: str) -> Config:
    """A recipe by its name, such as `hacs-hico-s`.

    Raises:
        UsageError: there is no such recipe.

    """
    return compose_config(Config, _preset_values(name), origin=f"preset {name}")


def finetuning_preset(name: str) -> FinetuneConfig:
    """A recipe of finetuning by its name, such as `finetune-hmdb51`.

    Raises:
        UsageError: there is no such recipe.

    """
    return compose_config(FinetuneConfig, _preset_values(name), origin=f"preset {name}")


def load_config(path: Path | str | None = None, *, base: str = "hacs-hico-s", overrides: Iterable[str] = ()) -> Config:
    """Put a configuration together: preset `base`, then the file, then the overrides.

    Args:
        path: YAML of the same sections; only what differs. Its own `base:` takes the place of `base`. None: no file.
        base: name of the preset to start from.
        overrides: `section.key=value`, values as in YAML.

    Raises:
        UsageError: a file, key or value is wrong; the message names it, and the nearest known key.

    """
    return _load(Config, path, base=base, overrides=overrides)


def load_finetuning_config(
    path: Path | str | None = None, *, base: str = "finetune-hmdb51", overrides: Iterable[str] = ()
) -> FinetuneConfig:
    """The same for finetuning; see `load_config`.

    Raises:
        UsageError: a file, key or value is wrong; the message names it, and the nearest known key.

    """
    return _load(FinetuneConfig, path, base=base, overrides=overrides)


def _load(schema: type[Schema], path: Path | str | None, *, base: str, overrides: Iterable[str]) -> Schema:
    values = _preset_values(base)
    if path is not None:
        of_file = read_yaml_file(Path(path))
        if "base" in of_file:
            values = {}
        values = merge(values, _with_base(of_file, folder=Path(path).parent, origin=str(path)))
    return compose_config(schema, values, origin=f"preset {base}" if path is None else str(path), overrides=overrides)


def compose_config(
    schema: type[Schema], values: Mapping[str, Any], *, origin: str, overrides: Iterable[str] = ()
) -> Schema:
    """Put overrides over values, and validate what comes out: two overrides may only make sense together.

    Args:
        schema: Config or FinetuneConfig.
        values: by section and key; what is missing has its default.
        origin: of the values, for messages.
        overrides: `section.key=value`, values as in YAML.

    Raises:
        UsageError: a key or value is wrong; the message names it.

    """
    overrides = list(overrides)
    for override in overrides:
        values = merge(values, parse_override(override))
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _explain(error, schema, _who_set(error, overrides) or origin) from None


def _who_set(error: ValidationError, overrides: list[str]) -> str | None:
    """The override behind the first problem: of its key, or, of a contradiction, one that it names."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    keys = {override: override.partition("=")[0] for override in overrides}
    for override in reversed(overrides):
        own = keys[override]
        if (key and (key.startswith(own) or own.startswith(key))) or (not key and own in problem["msg"]):
            return f"-o {override}"
    return None


def dump_config(config: BaseModel) -> str:
    """The whole configuration as YAML, which `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flat_settings(config: BaseModel) -> dict[str, Any]:
    """All settings by their dotted keys: {"train.epochs": 120, ...}."""
    flat: dict[str, Any] = {}
    for section, values in config.model_dump().items():
        if isinstance(values, dict):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    return flat
