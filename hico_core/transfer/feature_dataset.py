"""Features that `hico extract-features` wrote, as a PyTorch data set with one item per video."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hico_core.transfer.extraction.manifest import features_of, require_features


class VideoFeatures(NamedTuple):
    """An item: the features of one video."""

    video_id: str
    features: Tensor  # (W, F, ...) as stored
    times: Tensor  # (W, 2) float64: start and end of each row, in seconds
    labels: list[str]  # of each row if rows are annotated segments, otherwise empty


class FeatureDataset(Dataset[VideoFeatures]):
    """The videos of a folder of features, in order of their ids; each file is read on access.

    Videos differ in length, so give a `DataLoader` batch_size=None, or a collate_fn.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open a folder.

        Args:
            folder: ROOT/features/NAME.

        Raises:
            HicoError: it has no features, or features of several encoders.

        """
        self.folder = Path(folder)
        self._rows = sorted(require_features(self.folder).values(), key=lambda row: row.video_id)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._rows)

    def __getitem__(self, place: int) -> VideoFeatures:
        """Read the features of a video.

        Raises:
            HicoError: the file does not match the manifest.

        """
        row = self._rows[place]
        times = torch.tensor([row.start_seconds, row.end_seconds], dtype=torch.float64).T
        features = torch.tensor(features_of(self.folder, row))  # a copy: the array is mapped from the file
        return VideoFeatures(row.video_id, features, times, row.labels or [])

    def __repr__(self) -> str:
        return f"FeatureDataset({self.folder}, {len(self)} videos)"
