"""Decoders give the frames that were asked for, and all give the same pixels."""

import contextlib
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from made_videos import frames_of_ffmpeg, numbered_video, painted_number, run_ffmpeg, turned_copy

from hico_core.base.choices import DecoderName
from hico_core.base.errors import BadVideo, UsageError
from hico_core.corpus.clips.encode import encoder_arguments
from hico_core.corpus.clips.picture import scaled_size
from hico_core.corpus.clips.probe import frame_rate, frame_times, probe
from hico_core.corpus.workspace.records import PROFILES, SplitOptions
from hico_core.data.decode import decode_frames, frames_at
from hico_core.data.other_decoders import require_decoder

pytestmark = pytest.mark.videos

DECODERS: list[DecoderName] = ["pyav", "decord", "torchcodec"]


def skip_without(decoder: DecoderName) -> None:
    try:
        require_decoder(decoder)
    except UsageError as error:
        pytest.skip(str(error))


def _output_of(options: SplitOptions) -> list[str]:
    """The encoder's options of a profile, as for ffmpeg's command line."""
    return [part for key, value in encoder_arguments(options).items() for part in (f"-{key}", str(value))]


# What the loader reads: our own clips (x264, short keyframe interval), and other containers by hand.
FILES: dict[str, dict[str, Any]] = {
    "clip.mp4": {
        "seconds": 3,
        "output": ("-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-crf", "10"),
    },
    "b_frames.mp4": {"seconds": 3, "output": ("-c:v", "libx264", "-bf", "3", "-g", "250", "-crf", "10")},
    "open_gop.mp4": {
        "seconds": 3,
        "output": ("-c:v", "libx264", "-g", "20", "-crf", "10", "-x264-params", "open-gop=1:bframes=3"),
    },
    "open_gop_hevc.mp4": {
        "seconds": 3,
        "output": (
            *("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"),
            *("-x265-params", "log-level=none:crf=4:open-gop=1:bframes=4:keyint=20:min-keyint=20:scenecut=0"),
        ),
    },
    "variable.mkv": {"seconds": 3, "keep": "gt(random(5),0.3)"},
    "mpeg4.avi": {"seconds": 3, "output": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2")},
    "vp8.webm": {"seconds": 3, "output": ("-c:v", "libvpx", "-crf", "4", "-b:v", "4M")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decode")
    for name, how in FILES.items():
        numbered_video(folder / name, **how)
    return folder


def all_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_any_frames_in_any_order(folder: Path, name: str, decoder: DecoderName) -> None:
    skip_without(decoder)
    expected = all_frames(folder / name)
    refused = {"pyav": (), "decord": ("mpeg4.avi", "open_gop.mp4", "open_gop_hevc.mp4")}
    if name in refused.get(decoder, ("mpeg4.avi", "open_gop.mp4")):
        with pytest.raises(BadVideo, match=rf"{name}: {decoder} gives wrong frames for .* use data\.decoder=pyav"):
            decode_frames(folder / name, [0], decoder=decoder)
        return
    last = len(expected) - 1
    for indices in ([0], [last], [5, 3, 3, 40], list(range(20, 36)), [0, last], [29, 30, 31]):
        decoded = decode_frames(folder / name, indices, decoder=decoder)
        assert decoded.dtype == torch.uint8
        np.testing.assert_array_equal(decoded.numpy(), expected[indices])


def test_numbers_are_those_painted(folder: Path) -> None:
    decoded = decode_frames(folder / "clip.mp4", [0, 17, 89])
    assert [painted_number(picture.numpy()) for picture in decoded] == [0, 17, 89]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_frame_that_is_not_there(folder: Path, decoder: DecoderName) -> None:
    skip_without(decoder)
    for name in ("clip.mp4", "vp8.webm"):
        with pytest.raises(BadVideo, match=rf"{name}: has .*frame 90"):
            decode_frames(folder / name, [3, 90], decoder=decoder)


@pytest.mark.parametrize("indices", [[], [-1]])
def test_numbers_must_make_sense(folder: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="frame numbers"):
        decode_frames(folder / "clip.mp4", indices)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_files_that_are_no_video(tmp_path: Path, decoder: DecoderName, content: bytes) -> None:
    skip_without(decoder)
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(BadVideo, match=r"x\.mp4: cannot be"):
        decode_frames(tmp_path / "x.mp4", [0], decoder=decoder)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="no such file"):
        decode_frames(tmp_path / "x.mp4", [0])


def test_decord_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hico_core.data.other_decoders.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="decord is not installed"):
        decode_frames(folder / "clip.mp4", [0], decoder="decord")


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation(tmp_path: Path, angle: int) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:d=1", "-c:v", "libx264", tmp_path / "flat.mp4")
    turned_copy(tmp_path / "flat.mp4", tmp_path / "turned.mp4", degrees=angle)
    flat = decode_frames(tmp_path / "flat.mp4", [3])[0].numpy()
    turned = decode_frames(tmp_path / "turned.mp4", [3])[0].numpy()
    np.testing.assert_array_equal(turned, np.rot90(flat, angle // 90))
    for decoder in others():
        np.testing.assert_array_equal(decode_frames(tmp_path / "turned.mp4", [3], decoder=decoder)[0].numpy(), turned)


def others() -> list[DecoderName]:
    """The other decoders that are installed."""
    found: list[DecoderName] = []
    for decoder in DECODERS[1:]:
        with contextlib.suppress(UsageError):
            require_decoder(decoder)
            found.append(decoder)
    return found


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(240, 320, (96, 128)), (320, 240, (128, 96)), (96, 96, (96, 96))]
)
def test_short_side(folder: Path, height: int, width: int, expected: tuple[int, int]) -> None:
    assert scaled_size(height, width, short_side=96) == expected
    picture = decode_frames(folder / "clip.mp4", [4], short_side=60)
    assert picture.shape == (1, 60, 80, 3)
    assert painted_number(picture[0].numpy()) == 4
    for decoder in others():
        other = decode_frames(folder / "clip.mp4", [4], decoder=decoder, short_side=60)
        # Scaled from YUV here, from RGB there.
        assert (picture.int() - other.int()).abs().float().mean() < 2


# How real files are made, and how hico makes them.
ENCODINGS: dict[str, tuple[str, ...]] = {
    "naive": ("-c:v", "libx264"),
    "naive, long": ("-c:v", "libx264", "-g", "250", "-bf", "3", "-b_strategy", "2"),
    "open GOP": ("-c:v", "libx264", "-x264-params", "open-gop=1:bframes=3:keyint=25"),
    "pyramid": ("-c:v", "libx264", "-bf", "7", "-x264-params", "b-pyramid=normal:keyint=40"),
    "no B frames": ("-c:v", "libx264", "-tune", "zerolatency", "-g", "20"),
    "hevc": ("-c:v", "libx265", "-x265-params", "log-level=none:bframes=4"),
    "hevc, one picture": ("-c:v", "libx265", "-x265-params", "log-level=none:open-gop=0:keyint=1"),
    "interlaced": ("-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
    "several slices": ("-c:v", "libx264", "-slices", "4"),
    "intra refresh": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=30"),
    **{name: tuple(_output_of(options)) for name, options in PROFILES.items()},
}


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_passing_over_frames_changes_no_bit(tmp_path: Path, encoding: str, container: str) -> None:
    """Any part of any file, with and without a known rate, is as decoding the whole file gives it."""
    path = tmp_path / f"a.{container}"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30000/1001:d=4", "-vf", "noise=alls=20:allf=t,format=yuv420p"),
        *ENCODINGS[encoding],
        path,
    )
    expected = all_frames(path)
    info = probe(path)
    rate = frame_rate(info.frame_seconds)
    assert len(expected) == 120 and not rate.variable
    countable = info.start_tick == info.timestamps[0]
    rng = random.Random(1)
    starts = [0, 56, *(rng.randrange(57) for _ in range(6))]
    for indices in [list(range(start, start + 64, 4)) for start in starts] + [[119], sorted(rng.sample(range(120), 9))]:
        np.testing.assert_array_equal(decode_frames(path, indices).numpy(), expected[indices])
        if countable:
            by_rate = decode_frames(path, indices, constant_fps=rate.fps)
            np.testing.assert_array_equal(by_rate.numpy(), expected[indices])


@pytest.mark.parametrize("decoder", DECODERS[1:])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoders_agree(tmp_path: Path, encoding: str, decoder: DecoderName) -> None:
    skip_without(decoder)
    path = tmp_path / "a.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=3", *ENCODINGS[encoding], "-pix_fmt", "yuv420p", path)
    indices = [0, 1, 7, 30, 31, 60, 74]
    try:
        pictures = decode_frames(path, indices, decoder=decoder)
    except BadVideo as bad:
        assert "use data.decoder=pyav" in str(bad)
        assert encoding in ("open GOP", "hevc", "hevc, one picture", "interlaced", "intra refresh")
    else:
        np.testing.assert_array_equal(pictures.numpy(), decode_frames(path, indices).numpy())


def test_times_of_all_frames(folder: Path) -> None:
    """From packets where they are frames one to one, else from decoding."""
    for name in FILES:
        with av.open(str(folder / name)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        assert frame_times(folder / name) == pytest.approx([moment - times[0] for moment in times])


@pytest.mark.parametrize("name", ["clip.mp4", "b_frames.mp4", "open_gop.mp4", "open_gop_hevc.mp4"])
@pytest.mark.parametrize("constant_fps", [None, 30.0])
def test_seeking_finds_each_frame(
    folder: Path, name: str, constant_fps: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Decoding from the start would find it as well, and hide that seeking or passing over frames went wrong."""
    pictures = all_frames(folder / name)
    for number in (0, 7, *range(14, 22), 28, *range(50, 62), 89):
        (found,) = decode_frames(folder / name, [number], constant_fps=constant_fps)
        np.testing.assert_array_equal(found.numpy(), pictures[number])
    assert not caplog.records


@pytest.mark.parametrize("constant_fps", [None, 30.0])
def test_frames_keep_their_numbers_behind_some_that_cannot_be_decoded(
    folder: Path, constant_fps: float | None, tmp_path: Path
) -> None:
    """Cut within an open GOP, the file begins with four frames that need its first half; the first good one is shown.

    Frame 0 of the cut file is 16 in the whole one, where 20 is a keyframe.
    """
    cut, keyframes = tmp_path / "cut.mp4", 0
    options = {"use_editlist": "0", "avoid_negative_ts": "make_zero"}  # else the four would be hidden
    with av.open(str(folder / "open_gop_hevc.mp4")) as whole, av.open(str(cut), "w", options=options) as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            keyframes += packet.is_keyframe
            if packet.size and keyframes > 1:
                packet.stream = stream
                part.mux(packet)
    for numbers in ([0], [3], [5], [0, 2, 4, 5, 30], [30]):
        found = decode_frames(cut, numbers, constant_fps=constant_fps)
        assert [painted_number(picture.numpy()) for picture in found] == [max(16 + number, 20) for number in numbers]


def test_frames_with_equal_times_are_told_apart(tmp_path: Path) -> None:
    """Such as 7, 8 and 9 here, whether they are asked for alone or together."""
    whole, equal = tmp_path / "whole.mp4", tmp_path / "equal.mp4"
    numbered_video(whole, seconds=1, output=("-c:v", "libx264", "-bf", "0", "-crf", "10"))
    later = r"setts=pts=PTS+between(N\,7\,8)*(9-N)*DURATION"
    run_ffmpeg("-i", whole, "-c", "copy", "-bsf:v", later, equal)
    assert len(set(frame_times(equal))) == len(frame_times(equal)) - 2 == 28
    for numbers in ([6], [7], [8], [9], [10], list(range(30))):
        assert [painted_number(picture.numpy()) for picture in decode_frames(equal, numbers)] == numbers


@pytest.mark.parametrize("name", FILES)
def test_frames_far_apart_are_found_one_after_the_other(folder: Path, name: str) -> None:
    """Also where a keyframe lies between them, from which it is quicker to begin anew."""
    pictures = all_frames(folder / name)
    numbers = [number for number in (0, 1, 5, 70, 72, 80) if number < len(pictures)]
    shown = [painted_number(frame.to_ndarray(format="rgb24")) for frame in frames_at(folder / name, numbers)]
    assert shown == [painted_number(picture) for picture in pictures[numbers]]
    with pytest.raises(BadVideo, match="no frame"):
        list(frames_at(folder / name, [0, 500]))


AWKWARD = [
    "video_90.mov",
    "video_270.mov",
    "av1_video.mkv",
    "h265_video.mp4",
    "h264_10bits.mp4",
    "unordered.mov",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_real_awkward_files(real_videos: Path, tmp_path: Path, name: str) -> None:
    path = real_videos / "awkward" / name
    expected = frames_of_ffmpeg(path, tmp_path)
    for index in {0, len(expected) // 2, len(expected) - 1}:
        np.testing.assert_array_equal(decode_frames(path, [index])[0].numpy(), expected[index])
        for decoder in others():
            try:
                picture = decode_frames(path, [index], decoder=decoder)[0].numpy()
            except BadVideo as bad:
                assert name in str(bad)  # refused by name, not answered with another frame
            else:
                np.testing.assert_array_equal(picture, expected[index])


@pytest.mark.parametrize("name", ["cockatoo.mp4", "bikes.mp4", "basketball.mp4", "v_GGSY1Qvo990.mp4"])
def test_real_files(real_videos: Path, name: str) -> None:
    """Decoding cannot begin at the later keyframes of the first: what comes from there is green and grey."""
    wanted = [50, 100, 150, 176]
    with av.open(str(real_videos / name)) as container:
        expected = [f.to_ndarray(format="rgb24") for n, f in enumerate(container.decode(video=0)) if n in wanted]
    for number, picture in zip(wanted, expected, strict=True):
        (found,) = decode_frames(real_videos / name, [number])
        np.testing.assert_array_equal(found.numpy(), picture)
