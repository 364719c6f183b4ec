"""Random clips of labelled videos, for training with labels."""

import random
from itertools import accumulate

from torch import Tensor
from torch.utils.data import Dataset

from hico_core.config import AugmentConfig, DataConfig
from hico_core.corpus.cache import LocalCache
from hico_core.data.augment import cut, draw_augmentation
from hico_core.data.dataset import ClipRequest, Sample, with_substitutes
from hico_core.data.reading import KeptFrames, decode_pieces, kept_frames, local_pieces, times_of_frames
from hico_core.data.sampling import frames_shown_at, random_view_indices
from hico_core.data.videos import IndexedVideos, Piece


def count_and_rate(pieces: list[Piece]) -> tuple[int, float]:
    """How many frames a video has, and how many a second: the numbers that `view_indices` asks for."""
    return sum(piece.num_frames for piece in pieces), pieces[0].fps


def read_numbered(
    pieces: list[Piece], frames: list[int], *, data: DataConfig, cache: LocalCache, kept: KeptFrames | None = None
) -> Tensor:
    """Decode frames of a video: (len(frames), H, W, 3) uint8.

    Args:
        pieces: of the whole video.
        frames: numbers at the video's average rate, ascending. Where the rate varies, those that are shown then.
        data: how to decode.
        cache: for files in buckets.
        kept: frames that need not be decoded again.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    last = frames[-1]
    if not pieces[0].variable_fps:  # only the files that are needed
        starts = list(accumulate((piece.num_frames for piece in pieces[:-1]), initial=0))
        first = max(number for number, start in enumerate(starts) if start <= frames[0])
        pieces = [piece for piece, start in zip(pieces, starts, strict=True) if starts[first] <= start <= last]
        frames = [frame - starts[first] for frame in frames]
    with local_pieces(pieces, cache=cache) as local:
        if pieces[0].variable_fps:
            times = times_of_frames(local)
            frames = frames_shown_at(times, [frame / pieces[0].fps for frame in frames])
        return decode_pieces(local, frames, decoder=data.decoder, short_side=data.short_side, kept=kept)


class RandomViews(Dataset[Sample]):
    """Answers a `ClipRequest` with one random clip of its video, or of another's where that cannot be decoded."""

    def __init__(self, videos: IndexedVideos, *, data: DataConfig, augment: AugmentConfig, cache: LocalCache) -> None:
        self._videos = videos
        self._data = data
        self._augment = augment
        self._cache = cache
        self._kept = kept_frames(data)

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Make one item. The same request gives the same item, in any process; nothing is raised for bad videos."""

        def make(video: int, rng: random.Random) -> Sample:
            pieces = self._videos.pieces(video)
            total, fps = count_and_rate(pieces)
            data = self._data
            frames = random_view_indices(
                total_frames=total,
                fps=fps,
                num_frames=data.num_frames,
                stride=data.frame_stride,
                target_fps=data.target_fps,
                rng=rng,
            )
            frames_THWC = read_numbered(pieces, frames, data=data, cache=self._cache, kept=self._kept)
            draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], self._augment, rng=rng)
            window = (frames[0] / fps, frames[-1] / fps)
            return Sample([cut(frames_THWC, draw.crop)], [draw], self._videos.video_id(video), [window], [])

        return with_substitutes(request, self._videos, make)
