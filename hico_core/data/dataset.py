"""One training item: some clips of one untrimmed video, read and cropped, and their augmentation drawn."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from hico_core.base.errors import BadVideo
from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.data.augment import AugmentDraw, cut, draw_augmentation
from hico_core.data.reading import errors_of_video, kept_frames, read_clip
from hico_core.data.sampling import clip_windows
from hico_core.data.videos import IndexedVideos

# How many substitutes are tried for a video before the item is given up.
_MAX_SUBSTITUTES = 20


class ClipRequest(NamedTuple):
    """Everything that a loader's worker needs to make one item; there is no other input."""

    video: int  # position among the training videos
    seed: int  # all randomness of the item comes from here
    max_distance_seconds: float | None  # between the near clips' centres; None: anywhere in the video
    not_instead: frozenset[int] = frozenset()  # videos of the same step, which must not be substitutes for this one


class UnusableVideo(NamedTuple):
    """A video that was replaced by another one."""

    video_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training item."""

    crops: list[Tensor]  # views of each clip's frames: (T, H, W, 3) uint8; none if no video could be decoded
    draws: list[AugmentDraw]  # the remaining augmentation of each clip
    video: int  # position among the training videos; a substitute's, if one was used
    video_id: str
    windows: list[tuple[float, float]]  # start and end of each clip, in seconds
    unusable: list[UnusableVideo]  # videos that were tried before this one


def with_substitutes(
    request: ClipRequest, videos: IndexedVideos, make: Callable[[int, random.Random], Sample]
) -> Sample:
    """Make an item from the requested video, or, if that fails, from others drawn at random.

    Videos of the same step are drawn only if there are no others: a video that is in a step twice counts as two.

    Args:
        request: the video, and the seed of everything that is drawn.
        videos: the videos from which substitutes are drawn.
        make: makes the item of a video; raises BadVideo if the video cannot be decoded.

    Returns:
        The item, or one without crops if none of 20 others can be decoded either.

    """
    rng = random.Random(request.seed)
    video, avoided = request.video, set(request.not_instead)
    unusable: list[UnusableVideo] = []
    for _ in range(_MAX_SUBSTITUTES + 1):
        try:
            with errors_of_video(videos.video_id(video)):
                sample = make(video, rng)
        except BadVideo as bad:
            unusable.append(UnusableVideo(videos.video_id(video), str(bad)))
            avoided.add(video)
            video = rng.randrange(len(videos))
            while video in avoided and len(avoided) < len(videos):
                video = rng.randrange(len(videos))
        else:
            return replace(sample, unusable=unusable)
    video_id = videos.video_id(request.video)
    return Sample(crops=[], draws=[], video=request.video, video_id=video_id, windows=[], unusable=unusable)


class ClipDataset(Dataset[Sample]):
    """Answers a `ClipRequest` with crops of clips from its video, or from a substitute if it cannot be decoded."""

    def __init__(
        self, videos: IndexedVideos, *, data: DataConfig, sampling: SamplingConfig, augment: AugmentConfig
    ) -> None:
        self.videos = videos
        self._kept = kept_frames(data.memory_gb)
        self.data = data
        self.sampling = sampling
        self.augment = augment

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Make one item; the same request gives the same item in any process.

        Bad videos raise nothing: an exception would arrive from a worker as a page of traceback.
        """

        def make(video: int, rng: random.Random) -> Sample:
            windows = self._draw_windows(video, request.max_distance_seconds, rng)
            clips = [self._read_crop(video, window, rng) for window in windows]
            crops, draws = [crop for crop, _ in clips], [draw for _, draw in clips]
            video_id = self.videos.video_id(video)
            return Sample(crops=crops, draws=draws, video=video, video_id=video_id, windows=windows, unusable=[])

        return with_substitutes(request, self.videos, make)

    def frames_of(self, video: int, window: tuple[float, float]) -> Tensor:
        """The whole frames of a clip: (T, H, W, 3) uint8.

        Raises:
            BadVideo: they cannot be decoded.

        """
        return read_clip(
            self.videos.pieces(video, window),
            window,
            num_frames=self.data.num_frames,
            decoder=self.data.decoder,
            short_side=self.data.short_side,
            kept=self._kept,
        )

    def _draw_windows(
        self, video: int, max_distance_seconds: float | None, rng: random.Random
    ) -> list[tuple[float, float]]:
        return clip_windows(
            duration_seconds=self.videos.duration_seconds(video),
            span_seconds=self.data.span_seconds,
            num_clips=self.sampling.clips_per_video,
            max_distance_seconds=max_distance_seconds,
            topical=self.sampling.topical,
            rng=rng,
            cuts=(self.videos.cuts(video) or []) if self.data.cuts == "respect" else [],
        )

    def _read_crop(self, video: int, window: tuple[float, float], rng: random.Random) -> tuple[Tensor, AugmentDraw]:
        """Decode one clip and cut its crop, (T, H, W, 3) uint8; its other augmentation is drawn but not applied."""
        frames_THWC = self.frames_of(video, window)
        draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], self.augment, rng=rng)
        return cut(frames_THWC, draw.crop), draw
