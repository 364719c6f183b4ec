"""Trainings that experiments have in common: on a part of an index, without labels or with them."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hico_core.base.storage import written_beside
from hico_core.checkpoints.content import export_encoder
from hico_core.config import FinetuneConfig, ModelConfig
from hico_core.data.pictures import clip_shape_for, picture_for
from hico_core.encoders.trained import build_encoder
from hico_core.training.task import Task, Watch
from hico_core.transfer.finetuning.train import finetune


def write_part_of_index(root: Path, part: Path, labels: Mapping[str, int | None]) -> None:
    """An index of some videos of a workspace, in a workspace of its own.

    Args:
        root: the workspace.
        part: the other one.
        labels: class of each of the videos by its id.

    """
    table = pq.read_table(root / "index.parquet")
    rows = [
        {**row, "path": str(root.absolute() / row["path"]), "label": labels[row["video_id"]]}
        for row in table.to_pylist()
        if row["video_id"] in labels
    ]
    with written_beside(part / "index.parquet") as beside:
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), beside, write_page_checksum=True)


def write_untrained(file: Path, config: FinetuneConfig, *, encoder: str = "s3dg-tiny") -> None:
    """The encoder as trainings with a seed begin it, as a file."""
    torch.manual_seed(config.train.seed)
    picture, clip = picture_for(config.data, config.augment), clip_shape_for(config.data)
    export_encoder(file, build_encoder(ModelConfig(encoder=encoder)), picture, clip)


def train_with_labels(config: FinetuneConfig, *, root: Path, run_dir: Path) -> Path:
    """Train an encoder on the labels of an index from its beginning; the checkpoint.

    Raises:
        HicoError: the run cannot start or go on.

    """
    start = run_dir.with_name(f"{run_dir.name}-start.safetensors")
    write_untrained(start, config)
    finetune(Task(config=config, root=root, run_dir=run_dir, encoder=start, device="cpu"), Watch())
    return run_dir / "checkpoints" / "last.pt"
