"""Frames of a video are looked for in the files that hold them; tests/data/test_dataset.py decodes them."""

from collections.abc import Sequence
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from hico_core.base.errors import BadVideo, HicoError
from hico_core.data.reading import KeptFrames, by_file, clock_of, errors_of_video, pieces_with
from hico_core.data.videos import Piece


def piece(name: str, first_number: int, num_frames: int, *, first_frame: int = 0, start_seconds: float = 0.0) -> Piece:
    return Piece(
        path=Path(name),
        start_seconds=start_seconds,
        num_frames=num_frames,
        fps=10.0,
        variable_fps=False,
        first_number=first_number,
        first_frame=first_frame,
    )


CLIPS = [piece("0.mp4", 0, 50), piece("1.mp4", 50, 50, start_seconds=5.0), piece("2.mp4", 100, 20, start_seconds=10.0)]
IN_PLACE = [piece("a.mp4", first, 50, first_frame=first, start_seconds=first / 10) for first in (0, 50, 100)]


@pytest.mark.parametrize(
    ("numbers", "of_clips", "in_place"),
    [
        ([0, 49], {0: [0, 49]}, {0: [0, 49]}),
        ([49, 50], {0: [49], 1: [0]}, {0: [49], 1: [50]}),
        ([10, 110], {0: [10], 2: [10]}, {0: [10], 2: [110]}),  # none of the middle one
        ([60, 60, 60], {1: [10, 10, 10]}, {1: [60, 60, 60]}),  # a frame that is shown for long
        ([119], {2: [19]}, {2: [119]}),
        ([], {}, {}),
    ],
)
def test_frames_are_found_in_their_files(
    numbers: list[int], of_clips: dict[int, list[int]], in_place: dict[int, list[int]]
) -> None:
    for pieces, expected in ((CLIPS, of_clips), (IN_PLACE, in_place)):
        found = pieces_with(pieces, numbers)
        assert {pieces.index(part): inside for part, inside in found} == expected


def test_pieces_of_one_file_stand_together() -> None:
    assert by_file(IN_PLACE) == [IN_PLACE]
    assert by_file(CLIPS) == [[part] for part in CLIPS]


@pytest.mark.parametrize("pieces", [CLIPS, CLIPS[1:]])
def test_a_constant_rate_is_known_without_reading(pieces: list[Piece]) -> None:
    """No file of these is there."""
    clock = clock_of(pieces)
    assert (clock.fps, clock.num_frames, clock.stamps) == (10.0, 120, None)
    assert clock.shown_at([0.0, 5.0, 11.95, 99.0]).tolist() == [0, 50, 119, 119]


class Decoder:
    """Frames of 3 bytes, each with its number; what was asked for is noted."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        self.asked.append(list(numbers))
        return torch.tensor(list(numbers), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 1, 3).contiguous()


@pytest.mark.parametrize(
    ("room", "asked"),
    [
        (1000, [[50, 51, 52, 53], [60, 61]]),  # all that is kept is decoded once
        (13, [[50, 51, 52, 53], [60, 61], [61]]),  # the second does not fit, and nothing more is tried
        (12, [[50, 51, 52, 53], [60], [61]]),  # the first one fills it
        (0, [[53, 50], [60], [51], [61]]),
    ],
)
def test_frames_are_kept_as_far_as_there_is_room(room: int, asked: list[list[int]]) -> None:
    """Whatever is kept, the frames are the same."""
    one, other = piece("a.mp4", 0, 4, first_frame=50), piece("b.mp4", 4, 2, first_frame=60)
    kept, decode = KeptFrames(size_bytes=room), Decoder()
    taken = [kept.take(part, numbers, None, decode) for part, numbers in ((one, [53, 50]), (other, [60]))]
    taken += [kept.take(part, numbers, None, decode) for part, numbers in ((one, [51]), (other, [61]))]
    assert [frames[:, 0, 0, 0].tolist() for frames in taken] == [[53, 50], [60], [51], [61]]
    assert decode.asked == asked


@pytest.mark.parametrize(
    "error",
    [
        *(ZeroDivisionError("0"), KeyError("x"), RuntimeError("y"), ValueError("z")),
        av.error.OSError(95, "Operation not supported"),  # a pixel format that is not known
    ],
)
def test_what_a_decoder_stumbles_over_is_the_videos_fault(error: Exception) -> None:
    with pytest.raises(BadVideo, match=rf"a\.mp4: cannot be read \({type(error).__name__}: "), errors_of_video("a.mp4"):
        raise error


@pytest.mark.parametrize("error", [HicoError("the disk is full"), KeyboardInterrupt(), MemoryError()])
def test_what_is_no_videos_fault_goes_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, errors_of_video("a.mp4"):
        raise error
    assert caught.value is error
