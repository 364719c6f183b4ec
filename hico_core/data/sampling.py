"""Choose the moments and frames of training samples: pure functions without files or global state.

Times are in seconds from the video's first frame; frames are counted in presentation order from 0.
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
    uniform within `max_distance_seconds` of the previous one, or over the whole video if that is None.
    With `topical`, the last clip is drawn again over the whole video, and its first draw is discarded.

        0   span                      duration - span   duration
        |----|............................|----|
                 c1 c2 (near)       c3 (topical, anywhere)

    An interval whose end lies before its start collapses to its start, so videos shorter than two spans give
    the same clip every time. Windows are clipped to [0, duration].

    If some shot is at least as long as a clip, near clips lie completely within one shot: the first centre is uniform
    over all such shots, and each near one stays in the shot of the previous one.

    Args:
        duration_seconds: length of the video.
        span_seconds: length of a clip.
        num_clips: number of clips.
        max_distance_seconds: largest distance between near centres; None: no limit.
        topical: draw the last clip from anywhere in the video.
        rng: the only source of randomness; the number of draws does not depend on the cuts.
        cuts: starts of new shots, ascending; ignored if `max_distance_seconds` is None.

    Returns:
        `num_clips` windows in seconds, in the order in which they were drawn.

    """
    # A whole span from both ends, as in the authors' code, although half a span would keep the clip inside.
    earliest, latest = span_seconds, duration_seconds - span_seconds

    def draw(low: float, high: float) -> float:
        # Draw even if there is no choice: each centre consumes one number, so that a seed always gives the same clips.
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
        centres[-1] = draw(earliest, latest)  # consumes one more number, after the one for its first draw
    half = span_seconds / 2
    return [(max(c - half, 0.0), min(c + half, duration_seconds)) for c in centres]


def centres_within_shots(
    cuts: Sequence[float], *, span_seconds: float, duration_seconds: float
) -> list[tuple[float, float]]:
    """Ranges of a clip's centre for which the clip contains no cut, a span away from both ends of the video.

    span 2, duration 10, cuts at 4 and 5  ->  2 to 3, 6 to 8 (the shot from 4 to 5 is too short)
    """
    half = span_seconds / 2
    centres = [
        (max(begin + half, span_seconds), min(end - half, duration_seconds - span_seconds))
        for begin, end in pairwise([0.0, *cuts, duration_seconds])
    ]
    return [(low, high) for low, high in centres if low <= high]


def _at(distance: float, ranges: Sequence[tuple[float, float]]) -> float:
    """The point at this distance into the ranges, laid end to end."""
    for low, high in ranges[:-1]:
        if distance < high - low:
            return low + distance
        distance -= high - low
    return ranges[-1][0] + distance


def _spread(start: float, end: float, num_frames: int, last: int) -> list[int]:
    """`num_frames` equally spaced positions, including the end, truncated and clipped to [0, last].

    Computed in float32, as in the authors' code: in rare ties, float64 gives the neighbouring frame.
    """
    positions = torch.linspace(start, end, num_frames).clamp(0, last)
    return [int(p) for p in positions]


def _spread_over_clip(start: float, clip_frames: float, num_frames: int, last: int) -> list[int]:
    """The same for a clip of `clip_frames` frames from `start` on; if it is shorter than a frame, of that frame."""
    return _spread(start, max(start + clip_frames - 1, start), num_frames, last)


def frame_indices(
    *, start_seconds: float, end_seconds: float, fps: float, total_frames: int, num_frames: int
) -> list[int]:
    """Frames of a clip that covers [start, end] of a video with a constant frame rate.

    Start and end are first truncated to frames. The end frame is included, so 16 frames from a window of 64 lie 64/15
    apart, not 4, as in the training of the authors' published models. For a window shorter than a frame (time lapses),
    where their arithmetic fails, the frames are those shown at equally spaced moments.
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

    View k starts k/num_views into the range of possible starts, so the last view does not reach the end (as in the
    authors' code); a single view is centred. Short videos repeat their last frame.
    """
    clip_frames = num_frames * stride * fps / target_fps
    free = max(total_frames - clip_frames, 0)
    start = free / 2 if num_views == 1 else free * view / num_views
    return _spread_over_clip(start, clip_frames, num_frames, total_frames - 1)


def random_view_indices(
    *, total_frames: int, fps: float, num_frames: int, stride: int, target_fps: float, rng: random.Random
) -> list[int]:
    """Frames of a clip anywhere in a video with a constant frame rate, for training with labels."""
    clip_frames = num_frames * stride * fps / target_fps
    start = rng.uniform(0, max(total_frames - clip_frames, 0))
    return _spread_over_clip(start, clip_frames, num_frames, total_frames - 1)


def video_order(*, num_videos: int, epoch: int, num_epochs: int, seed: int) -> list[int]:
    """The videos of `num_epochs` epochs from `epoch` on, in training order, each epoch shuffled separately."""
    order: list[int] = []
    for e in range(epoch, epoch + num_epochs):
        # Seeded by the epoch, not by earlier shuffles, so that a run can begin at any epoch.
        generator = torch.Generator().manual_seed(seed + e)
        order += torch.randperm(num_videos, generator=generator).tolist()
    return order


def batches_without_repeats(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut an order of videos into full batches; a video that is already in its batch waits for the next one.

    Where two epochs meet, a video could be in a batch twice and be treated as two different videos. Videos that do not
    fill a batch at the end are dropped.

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
            # Waiting videos come first, each once; a video that waits twice keeps waiting.
            batch = dict.fromkeys(waiting)
            for moved in batch:
                waiting.remove(moved)
    return batches


def item_seed(*, seed: int, epoch: int, position: int) -> int:
    """A seed for one item of an epoch that no other (seed, epoch, position) shares."""
    return int(np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint64)[0])
