"""A configuration for OpenTAD's tools/train.py and tools/test.py, based on its own unmodified `_base_` files."""

from pathlib import Path
from pprint import pformat
from typing import Any

from hico_core.base.choices import DetectionPreset
from hico_core.transfer.localisation.fitting import TEST, TRAIN, FeatureGrid, Fitted, Places
from hico_core.transfer.localisation.recipes import (
    NUM_WARMUP_EPOCHS,
    TIOU_THRESHOLDS,
    Recipe,
    batch_videos,
    checkpoint_interval,
    num_epochs,
    training_rows,
)

_PADDED: dict[DetectionPreset, str] = {
    "anet": "activitynet-1.3/features_tsp_pad.py",
    "hacs": "hacs-1.1.1/features_slowfast_pad.py",
    "thumos": "thumos-14/features_i3d_pad.py",
}
_SLIDING = "thumos-14/features_i3d_sw.py"  # the only sliding-window configuration that OpenTAD has
_MODEL = "models/actionformer.py"


def base_files(checkout: Path, preset: DetectionPreset, *, sliding: bool) -> list[Path]:
    """The files in a checkout of OpenTAD on which the configuration is based."""
    base = checkout / "configs/_base_"
    return [base / "datasets" / (_SLIDING if sliding else _PADDED[preset]), base / _MODEL]


def opentad_config(
    grid: FeatureGrid, fitted: Fitted, recipe: Recipe, *, bases: list[Path], sliding: bool, places: Places
) -> str:
    """The content of OpenTAD's Python file.

    Args:
        grid: of the features.
        fitted: the content of the annotation file.
        recipe: settings of the detector.
        bases: from `base_files`.
        sliding: cut videos into overlapping windows, instead of showing them whole.
        places: paths of everything that OpenTAD reads and writes.

    """
    num_rows = training_rows(recipe, longest_rows=fitted.longest_rows, sliding=sliding)
    parts = {
        "_base_": [str(path) for path in bases],
        "dataset": _dataset(grid, places, num_rows=num_rows, sliding=sliding),
        "evaluation": {
            "type": "mAP",
            "subset": TEST,
            "tiou_thresholds": TIOU_THRESHOLDS[recipe.evaluated_as],
            "ground_truth_filename": str(places.annotations),
            "blocked_videos": None,
        },
        "model": _model(grid, recipe, num_classes=len(fitted.categories), num_rows=num_rows),
        **_training(recipe, num_train=fitted.num_train),
        "work_dir": str(places.output),
    }
    return (
        "\n\n".join(f"{name} = {pformat(value, width=110, sort_dicts=False)}" for name, value in parts.items()) + "\n"
    )


def last_checkpoint(output: Path, *, epochs: int) -> Path:
    """The last checkpoint that training in one process writes."""
    return output / f"gpu1_id0/checkpoint/epoch_{epochs - 1}.pth"


def _dataset(grid: FeatureGrid, places: Places, *, num_rows: int, sliding: bool) -> dict[str, Any]:
    # ActivityNet's classes keep fractions of a frame; those of THUMOS round them off.
    common: dict[str, Any] = {
        "type": "AnetSlidingDataset" if sliding else "AnetPaddingDataset",
        "ann_file": str(places.annotations),
        "class_map": str(places.categories),
        "data_path": str(places.features),
        "block_list": None,
        "class_agnostic": False,
        "feature_stride": grid.stride,
        "sample_stride": 1,
        "offset_frames": int(grid.offset_frames),
        "fps": -1,  # each video's own: frame / duration in the annotations
    }
    window = {"type": "SlidingWindowTrunc", "with_mask": True}
    crop = {"type": "RandomTrunc", "trunc_len": num_rows, "trunc_thresh": 0.5, "crop_ratio": [0.9, 1.0]}
    if sliding:
        # With less overlap, OpenTAD drops the end of videos that are slightly longer than a window.
        common |= {"window_size": num_rows, "window_overlap_ratio": 0.5}
    train = {**common, "subset_name": [TRAIN], "filter_gt": True}
    test = {**common, "subset_name": [TEST], "filter_gt": True}
    labels = ["gt_segments", "gt_labels"]
    cut = [window] if sliding else []
    return {
        "train": {**train, "pipeline": _pipeline(grid, cut or [crop], labels=labels)},
        "val": {**test, "pipeline": _pipeline(grid, cut, labels=labels)},
        "test": {**test, "test_mode": True, "pipeline": _pipeline(grid, cut, labels=[])},
    }


def _pipeline(grid: FeatureGrid, cut: list[dict[str, Any]], *, labels: list[str]) -> list[dict[str, Any]]:
    return [
        {"type": "LoadFeats", "feat_format": grid.file_format, "prefix": grid.prefix, "suffix": grid.suffix},
        {"type": "ConvertToTensor", "keys": ["feats", *labels]},
        *cut,
        {"type": "Rearrange", "keys": ["feats"], "ops": "t c -> c t"},
        {"type": "Collect", "inputs": "feats", "keys": ["masks", *labels]},
    ]


def _model(grid: FeatureGrid, recipe: Recipe, *, num_classes: int, num_rows: int) -> dict[str, Any]:
    width = recipe.width
    return {
        "projection": {
            "in_channels": grid.dim,
            "out_channels": width,
            "attn_cfg": {"n_head": 4, "n_mha_win_size": list(recipe.attention_windows)},
            "use_abs_pe": recipe.position_encoding,
            "max_seq_len": num_rows,
            "input_pdrop": recipe.input_dropout,
        },
        "neck": {"in_channels": width, "out_channels": width},
        "rpn_head": {
            "num_classes": num_classes,
            "in_channels": width,
            "feat_channels": width,
            "label_smoothing": recipe.label_smoothing,
            "loss_weight": recipe.regression_weight,
            "loss_normalizer": recipe.first_loss_norm,
        },
    }


def _training(recipe: Recipe, *, num_train: int) -> dict[str, Any]:
    epochs = num_epochs(recipe, num_train=num_train)
    one_by_one = {"batch_size": 1, "num_workers": 2}  # test videos have any length
    train = {"batch_size": batch_videos(recipe, num_train=num_train), "num_workers": 2}
    nms = {
        "use_soft_nms": True,
        "sigma": recipe.nms_sigma,
        "max_seg_num": recipe.most_segments,
        "iou_threshold": 0.1,  # unused by soft suppression
        "min_score": 0.001,
        "multiclass": True,
        "voting_thresh": recipe.nms_voting,
    }
    schedule = {"warmup_epoch": NUM_WARMUP_EPOCHS, "max_epoch": epochs}
    return {
        "solver": {"train": train, "val": one_by_one, "test": one_by_one, "clip_grad_norm": 1, "ema": True},
        "optimizer": {
            "type": "AdamW",
            "lr": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "paramwise": True,
        },
        "scheduler": {"type": "LinearWarmupCosineAnnealingLR", **schedule},
        "inference": {"load_from_raw_predictions": False, "save_raw_prediction": False},
        "post_processing": {"nms": nms, "save_dict": True},
        # A single evaluation, of the last epoch, so that nothing is chosen on the test videos.
        "workflow": {
            "logging_interval": 20,
            "checkpoint_interval": checkpoint_interval(epochs),
            "val_loss_interval": -1,
            "val_eval_interval": 1,
            "val_start_epoch": epochs - 1,
        },
    }
