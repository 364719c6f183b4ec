"""What ffmpeg is given follows from the options, and what it printed and how it ended are read right."""

import signal
from fractions import Fraction
from pathlib import Path

import pytest

from hico_core.base.errors import BadVideo, HicoError
from hico_core.corpus.clips.encode import (
    Cut,
    Job,
    encode,
    encoder_arguments,
    encoder_fault,
    read_cuts,
    read_frame_ticks,
    read_new_beginnings,
    require_success,
    scale_filter,
)
from hico_core.corpus.clips.ffmpeg import Ffmpeg, Finished
from hico_core.corpus.clips.plan import PlannedClip, Segment
from hico_core.corpus.workspace.records import SplitOptions

# As the filters print it: before frame 2, the pictures change, and ffmpeg counts anew.
PRINTED = """frame:0    pts:0       pts_time:0
hico=1
frame:1    pts:-512     pts_time:0.03
hico=1
frame:0    pts:1024    pts_time:0.07
hico=1
"""


# And with the scene filter, which says something of each frame: the third is the first of a shot.
WITH_CUTS = """frame:0    pts:0       pts_time:0
lavfi.scd.mafd=0.000
lavfi.scd.score=0.000
hico=1
frame:1    pts:512     pts_time:0.03
lavfi.scd.score=9.120
hico=1
frame:0    pts:1024    pts_time:0.07
lavfi.scd.score=31.400
lavfi.scd.time=0.07
hico=1
"""


def test_what_ffmpeg_printed_of_cuts() -> None:
    assert read_cuts(WITH_CUTS) == [2]
    assert read_frame_ticks(WITH_CUTS) == [0, 512, 1024] and read_new_beginnings(WITH_CUTS) == [2]
    assert read_cuts(PRINTED) == read_cuts("") == []


def test_what_ffmpeg_printed_of_frames() -> None:
    assert read_frame_ticks(PRINTED) == [0, -512, 1024]
    assert read_new_beginnings(PRINTED) == [2]
    assert read_frame_ticks("") == read_new_beginnings("") == []


@pytest.mark.parametrize("short_side", [None, 96])
def test_sides_are_even(short_side: int | None) -> None:
    assert "/2)*2" in scale_filter(short_side)


@pytest.mark.parametrize(
    ("options", "some"),
    [
        ({}, {"c:v": "libx264", "crf": 23, "threads": 1, "bf": 3, "tune": "fastdecode"}),
        ({"fast_decode": False}, {"c:v": "libx264", "crf": 23, "threads": 1}),
        ({"encoder": "libx265", "crf": 30}, {"crf": 30, "threads": 1, "forced-idr": 1, "tune": "fastdecode"}),
        ({"encoder": "h264_nvenc", "crf": 30}, {"cq": 30, "forced-idr": 1}),  # the same quality by another name
        ({"encoder": "libopenh264"}, {"b:v": "2M", "threads": 1}),
    ],
)
def test_each_encoder_gets_the_options_in_its_own_words(options: dict[str, object], some: dict[str, object]) -> None:
    chosen = SplitOptions.model_validate(options)
    arguments = encoder_arguments(chosen)
    assert some.items() <= arguments.items()
    assert arguments["g"] == chosen.gop
    assert ("tune" in arguments) == ("tune" in some)


@pytest.mark.videos
@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["Unknown encoder 'libx264'", "Error opening output file -."], "Unknown encoder 'libx264'"),
        (["ffmpeg: error while loading libfoo.so"], "ffmpeg: error while loading libfoo.so"),  # about no encoder
        ([], "it gave no reason"),
    ],
)
def test_why_an_encoder_fails(lines: list[str], fault: str, tmp_path: Path) -> None:
    says = "".join(f'echo "{line}" >&2\n' for line in lines)
    (tmp_path / "ffmpeg").write_text(f'#!/bin/sh\n[ "$1" = -version ] && echo ffmpeg && exit\n{says}exit 1\n')
    (tmp_path / "ffmpeg").chmod(0o755)
    assert encoder_fault(Ffmpeg(tmp_path / "ffmpeg"), SplitOptions(), folder=tmp_path) == fault


@pytest.mark.videos
@pytest.mark.parametrize(
    ("finished", "stopped", "error", "said"),
    [
        (Finished(0, []), False, None, ""),
        (Finished(0, ["a frame was broken"]), False, None, ""),  # what it says alone is no failure
        (Finished(1, ["first", "last"]), False, BadVideo, "ffmpeg ended with exit code 1 and said: last"),
        (Finished(1, []), False, BadVideo, "and said: nothing"),
        (Finished(-11, []), False, BadVideo, "killed by signal 11"),
        (Finished(-9, [], timed_out=True), False, BadVideo, "took longer than `hico split --timeout` allows"),
        (Finished(1, ["x: No space left on device"]), False, HicoError, "the disk or a quota is full"),
        (Finished(-signal.SIGXFSZ, []), False, HicoError, "the disk or a quota is full"),
        (Finished(-15, []), True, HicoError, "stopped before it was finished; the same command continues"),
    ],
)
def test_how_ffmpeg_ended(
    ffmpeg_program: Path, finished: Finished, stopped: bool, error: type[HicoError] | None, said: str
) -> None:
    """A video that is at fault is one of many; a full disk or a stop ends all."""
    program = Ffmpeg(ffmpeg_program)
    if stopped:
        program.stop()
    folder = Path("root/.tmp")
    job = Job(source=Path("a.mp4"), options=SplitOptions(), program=program, folder=folder, deadline=None)
    if error is None:
        require_success(job, finished)
        return
    with pytest.raises(error, match=said) as caught:
        require_success(job, finished)
    assert isinstance(caught.value, BadVideo) == (error is BadVideo)


@pytest.mark.videos
def test_a_video_of_very_many_clips(tmp_path: Path, ffmpeg_program: Path) -> None:
    """Linux limits one argument of a program to 128 KiB."""
    job = Job(
        source=Path("a.mp4"), options=SplitOptions(), program=Ffmpeg(ffmpeg_program), folder=tmp_path, deadline=None
    )
    plan = [PlannedClip(Segment(k, k + 1), k, 1) for k in range(30_000)]
    with pytest.raises(BadVideo, match=r"has 30000 clips, more than .*; use a longer `hico split --segment-seconds`"):
        encode(job, Cut(plan=plan, time_base=Fraction(1, 1000)))
