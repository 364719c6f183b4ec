"""A complete configuration for ActionFormer's train.py and eval.py."""

from typing import Any

from hico_core.transfer.localisation.fitting import TEST, TRAIN, FeatureGrid, Fitted, Places
from hico_core.transfer.localisation.recipes import (
    NUM_WARMUP_EPOCHS,
    Recipe,
    batch_videos,
    num_epochs,
    rounded_up,
    row_multiple,
    training_rows,
)


def actionformer_config(grid: FeatureGrid, fitted: Fitted, recipe: Recipe, *, places: Places) -> dict[str, Any]:
    """The content of ActionFormer's YAML file.

    Args:
        grid: of the features.
        fitted: the content of the annotation file.
        recipe: settings of the detector.
        places: paths of everything that ActionFormer reads and writes.

    """
    num_rows = training_rows(recipe, longest_rows=fitted.longest_rows, sliding=False)
    longest = rounded_up(fitted.longest_rows, row_multiple(recipe.attention_windows))
    return {
        "dataset_name": recipe.evaluated_as,
        "train_split": [TRAIN],
        "val_split": [TEST],
        "dataset": {
            "json_file": str(places.annotations),
            "feat_folder": str(places.features),
            "file_prefix": grid.prefix or None,
            "file_ext": f"{grid.suffix}.{grid.file_format}",
            "num_classes": len(fitted.categories),
            "input_dim": grid.dim,
            "feat_stride": grid.stride,
            # ActionFormer places a feature num_frames / 2 after the start of its stride.
            "num_frames": int(2 * grid.offset_frames),
            "default_fps": None,  # each video's own, from the annotations
            "downsample_rate": 1,
            "trunc_thresh": 0.5,
            "crop_ratio": [0.9, 1.0],
            "max_seq_len": num_rows,
            "force_upsampling": False,
        },
        "loader": {"batch_size": batch_videos(recipe, num_train=fitted.num_train), "num_workers": 2},
        "opt": {
            "learning_rate": recipe.learning_rate,
            "epochs": num_epochs(recipe, num_train=fitted.num_train) - NUM_WARMUP_EPOCHS,
            "warmup_epochs": NUM_WARMUP_EPOCHS,
            "weight_decay": recipe.weight_decay,
        },
        **_detector(recipe, buffer_factor=-(-longest // num_rows)),
        "output_folder": str(places.output),
    }


def _detector(recipe: Recipe, *, buffer_factor: int) -> dict[str, Any]:
    """The model, its losses and the post-processing; test videos may be longer by `buffer_factor`."""
    return {
        "model": {
            "fpn_type": "identity",
            "max_buffer_len_factor": buffer_factor,
            "n_mha_win_size": list(recipe.attention_windows),
            "n_head": 4,
            "embd_dim": recipe.width,
            "fpn_dim": recipe.width,
            "head_dim": recipe.width,
            "use_abs_pe": recipe.position_encoding,
        },
        "train_cfg": {
            "init_loss_norm": recipe.first_loss_norm,
            "clip_grad_l2norm": 1.0,
            "label_smoothing": recipe.label_smoothing,
            "loss_weight": recipe.regression_weight,
        },
        "test_cfg": {
            "voting_thresh": recipe.nms_voting,
            "pre_nms_topk": 2000,
            "max_seg_num": recipe.most_segments,
            "min_score": 0.001,
            "multiclass_nms": True,
            "nms_sigma": recipe.nms_sigma,
            "duration_thresh": 0.001,
        },
    }
