"""Which moments of a video a training sample is made of. Pure functions: no file, no global state.

Times are in seconds from the video's first frame, frames are counted in presentation order from 0.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch


def clip_windows(
    *,
    duration_seconds: float,
    span_seconds: float,
    num_clips: int,
    max_distance_seconds: float | None,
    topical: bool,
    rng: random.Random,
    cuts: Sequence[float] = (),
) -> list[tuple[float, float]]:
    """Draw the (start, end) of each clip of one video (HiCo, section 3; authors' order of draws).

    The first centre is uniform over the video, a whole span away from both ends. Each further centre is
    uniform within `max_distance_seconds` of the one before it, or over the whole video where that is None.
    With `topical`, the last clip is far: drawn once more over the whole video, its first draw thrown away.

        0   span                      duration - span   duration
        |----|............................|----|
                 c1 c2 (near)       c3 (topical, anywhere)

    An interval whose end lies before its start collapses to its start, so videos shorter than two spans give
    the same clip every time. Windows are cut to [0, duration].

    Clips that are near each other lie in one shot, whole, where there is a shot as long as a clip: the first centre is
    then uniform over all of these, and each near one keeps to the shot of the one before it.

    Args:
        duration_seconds: of the video.
        span_seconds: of a clip.
        num_clips: how many.
        max_distance_seconds: of near centres.
        topical: draw the last one as a far one.
        rng: all chance; as many numbers are drawn whatever the cuts are.
        cuts: when new shots begin, ascending; none are minded where no clip is near another.

    Returns:
        `num_clips` windows in seconds, in the order in which they were drawn.

    """
    # A whole span from both ends, though half of one would keep the clip inside: so the authors draw.
    earliest, latest = span_seconds, duration_seconds - span_seconds

    def draw(low: float, high: float) -> float:
        # Also where there is nothing to choose: each centre takes one number, so that a seed's clips stay the same.
        return rng.uniform(low, max(low, high))

    shots = centres_within_shots(cuts, span_seconds=span_seconds, duration_seconds=duration_seconds)
    if max_distance_seconds is None or not shots:
        shots = [(earliest, max(earliest, latest))]
    centres = [_at(draw(0.0, sum(high - low for low, high in shots)), shots)]
    for _ in range(num_clips - 1):
        if max_distance_seconds is None:
            centres.append(draw(earliest, latest))
        else:
            near = centres[-1]
            low, high = next((shot for shot in reversed(shots) if shot[0] <= near), shots[0])
            centres.append(draw(max(near - max_distance_seconds, low), min(near + max_distance_seconds, high)))
    if topical:
        centres[-1] = draw(earliest, latest)  # a further number of the generator, after that of its first draw
    half = span_seconds / 2
    return [(max(c - half, 0.0), min(c + half, duration_seconds)) for c in centres]


def centres_within_shots(
    cuts: Sequence[float], *, span_seconds: float, duration_seconds: float
) -> list[tuple[float, float]]:
    """Where the centre of a clip may lie so that no cut is in the clip, a span away from both ends of the video.

    span 2, duration 10, cuts at 4 and 5  ->  2 to 3, 6 to 8 (the shot from 4 to 5 is too short)
    """
    half = span_seconds / 2
    centres = [
        (max(begin + half, span_seconds), min(end - half, duration_seconds - span_seconds))
        for begin, end in pairwise([0.0, *cuts, duration_seconds])
    ]
    return [(low, high) for low, high in centres if low <= high]


def _at(distance: float, ranges: Sequence[tuple[float, float]]) -> float:
    """The point that lies so far into ranges, taken one behind the other."""
    for low, high in ranges[:-1]:
        if distance < high - low:
            return low + distance
        distance -= high - low
    return ranges[-1][0] + distance


def _spread(start: float, end: float, num_frames: int, last: int) -> list[int]:
    """`num_frames` equally spaced positions, the end included, truncated and cut to [0, last].

    In float32, as in the authors' code: on rare ties float64 gives the neighbouring frame.
    """
    positions = torch.linspace(start, end, num_frames).clamp(0, last)
    return [int(p) for p in positions]


def frame_indices(
    *, start_seconds: float, end_seconds: float, fps: float, total_frames: int, num_frames: int
) -> list[int]:
    """Frames of a clip that covers [start, end] of a video with a constant frame rate.

    Start and end are first truncated to frames. The step includes the end frame, so 16 frames of a window of
    64 lie 64/15 apart, not 4: that is what the authors' published models were trained on. In a window shorter than a
    frame (time lapses), for which their arithmetic has no answer, the frames are those that are shown then.
    """
    if 0 <= (end_seconds - start_seconds) * fps < 1:
        moments = np.linspace(start_seconds, end_seconds, num_frames)
        return [min(int(moment * fps), total_frames - 1) for moment in moments]
    first = int(start_seconds * fps)
    end = min(int(end_seconds * fps), total_frames)  # exclusive
    return _spread(first, end, num_frames, end - 1)


def view_indices(
    *,
    total_frames: int,
    fps: float,
    view: int,
    num_views: int,
    num_frames: int,
    stride: int,
    target_fps: float,
) -> list[int]:
    """Frames of test view `view` of `num_views` of a video with a constant frame rate.

    View k starts k/num_views into the range in which a clip can start, so the last view does not reach the
    end (authors' semantics); a single view is the middle one. Short videos repeat their last frame.
    """
    clip_frames = num_frames * stride * fps / target_fps
    free = max(total_frames - clip_frames, 0)
    start = free / 2 if num_views == 1 else free * view / num_views
    return _spread(start, start + clip_frames - 1, num_frames, total_frames - 1)


def random_view_indices(
    *, total_frames: int, fps: float, num_frames: int, stride: int, target_fps: float, rng: random.Random
) -> list[int]:
    """Frames of a clip anywhere in a video with a constant frame rate, for training with labels."""
    clip_frames = num_frames * stride * fps / target_fps
    start = rng.uniform(0, max(total_frames - clip_frames, 0))
    return _spread(start, start + clip_frames - 1, num_frames, total_frames - 1)


def video_order(*, num_videos: int, epoch: int, num_epochs: int, seed: int) -> list[int]:
    """The videos of `num_epochs` epochs from `epoch` on, in training order, each epoch shuffled by itself."""
    order: list[int] = []
    for e in range(epoch, epoch + num_epochs):
        # By the epoch, not by what was shuffled before it, so that a run can begin at any epoch.
        generator = torch.Generator().manual_seed(seed + e)
        order += torch.randperm(num_videos, generator=generator).tolist()
    return order


def batches_without_repeats(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut an order of videos into full batches; a video that is already in its batch waits for the next one.

    Where two epochs meet, one video could stand twice in a batch and be taken for two different videos. What
    does not fill a batch at the end is dropped.

    order 1 2 3 | 3 1 2, batch size 2  ->  [1 2] [3 1] [3 2]
    """
    batches: list[list[int]] = []
    batch: dict[int, None] = {}  # a set that keeps its order
    waiting: list[int] = []
    for video in order:
        if video in batch:
            waiting.append(video)
            continue
        batch[video] = None
        if len(batch) == batch_size:
            batches.append(list(batch))
            # Those that waited come first, each once; what waits twice waits on.
            batch = dict.fromkeys(waiting)
            for moved in batch:
                waiting.remove(moved)
    return batches


def item_seed(*, seed: int, epoch: int, position: int) -> int:
    """A seed for one item of an epoch that no other (seed, epoch, position) shares."""
    return int(np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint64)[0])
