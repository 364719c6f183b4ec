"""Configurations: their settings (pretraining, finetuning), how they are composed (load), and the recipes (presets)."""

from hico_core.config.finetuning import FinetuneConfig, FinetuneOptimConfig, FinetuneTestConfig, FinetuneTrainConfig
from hico_core.config.load import (
    compose_config,
    default_recipe,
    dump_config,
    finetuning_preset_names,
    flat_settings,
    flat_values,
    load_config,
    load_finetuning_config,
    merge,
    nested_values,
    parse_override,
    preset,
    preset_names,
    read_yaml_file,
)
from hico_core.config.pretraining import Config, EvalConfig, LossConfig, OptimConfig, SamplingConfig, TrainConfig
from hico_core.config.sections import AugmentConfig, Channels, DataConfig, ModelConfig, one_or_three

__all__ = [
    "AugmentConfig",
    "Channels",
    "Config",
    "DataConfig",
    "EvalConfig",
    "FinetuneConfig",
    "FinetuneOptimConfig",
    "FinetuneTestConfig",
    "FinetuneTrainConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "SamplingConfig",
    "TrainConfig",
    "compose_config",
    "default_recipe",
    "dump_config",
    "finetuning_preset_names",
    "flat_settings",
    "flat_values",
    "load_config",
    "load_finetuning_config",
    "merge",
    "nested_values",
    "one_or_three",
    "parse_override",
    "preset",
    "preset_names",
    "read_yaml_file",
]
