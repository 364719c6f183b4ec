"""A dataset whose worker processes die, for tests. In a file of its own, since workers import it by name."""

import os
import signal
from pathlib import Path

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.data.dataset import ClipDataset, ClipRequest, Sample
from hico_core.data.videos import IndexedVideos


class DyingDataset(ClipDataset):
    """Ends its process at one request, as a crash of a decoder would, while a file is there."""

    def __init__(self, videos: IndexedVideos, *, deadly_seed: int, file: Path) -> None:
        super().__init__(videos, data=DataConfig(crop_size=32), sampling=SamplingConfig(), augment=AugmentConfig())
        self.deadly_seed, self.file = deadly_seed, file

    def __getitem__(self, request: ClipRequest) -> Sample:
        if request.seed == self.deadly_seed and self.file.exists():
            if self.file.read_text() == "once":
                self.file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(request)
