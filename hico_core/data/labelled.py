"""Random clips of labelled videos, for training with labels."""

import random

from torch.utils.data import Dataset

from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.augment import cut, draw_augmentation
from hico_core.data.dataset import ClipRequest, Sample, with_substitutes
from hico_core.data.reading import clock_of, decode_pieces, kept_frames
from hico_core.data.sampling import random_view_indices
from hico_core.data.videos import IndexedVideos


class RandomViews(Dataset[Sample]):
    """Answers a `ClipRequest` with one random clip of its video, or of a substitute if it cannot be decoded."""

    def __init__(self, videos: IndexedVideos, *, data: DataConfig, augment: AugmentConfig) -> None:
        self._videos = videos
        self._data = data
        self._augment = augment
        self._kept = kept_frames(data.memory_gb)

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Make one item, the same for the same request in any process; bad videos raise nothing."""

        def make(video: int, rng: random.Random) -> Sample:
            # All pieces: the clip is drawn by frame numbers, which need the clock of the whole video.
            pieces = self._videos.pieces(video)
            clock = clock_of(pieces)
            data = self._data
            numbers = random_view_indices(
                total_frames=clock.num_frames,
                fps=clock.fps,
                num_frames=data.num_frames,
                stride=data.frame_stride,
                target_fps=data.target_fps,
                rng=rng,
            )
            frames_THWC = decode_pieces(
                pieces,
                clock.numbered(numbers),
                decoder=data.decoder,
                short_side=data.short_side,
                kept=self._kept,
            )
            draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], self._augment, rng=rng)
            window = (numbers[0] / clock.fps, numbers[-1] / clock.fps)
            return Sample(
                crops=[cut(frames_THWC, draw.crop)],
                draws=[draw],
                video=video,
                video_id=self._videos.video_id(video),
                windows=[window],
                unusable=[],
            )

        return with_substitutes(request, self._videos, make)
