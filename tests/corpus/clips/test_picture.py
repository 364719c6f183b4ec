"""A file has the same pixels, those of `ffmpeg -i FILE`, whichever way it comes in."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame
from commands import hico
from made_videos import frames_of_ffmpeg, run_ffmpeg, with_clean_aperture
from PIL import Image

from hico_core.base.choices import DecoderName
from hico_core.base.errors import BadVideo, UsageError
from hico_core.corpus import untrimmed
from hico_core.corpus.clips import probe as probe_module
from hico_core.corpus.clips.encode import Job
from hico_core.corpus.clips.ffmpeg import Ffmpeg, Finished, ffmpeg_lacks, find_ffmpeg
from hico_core.corpus.clips.making import make_clips
from hico_core.corpus.clips.picture import Margins, margins_in, size_without, turn_filters
from hico_core.corpus.clips.probe import open_video, probe, shown_size_of
from hico_core.corpus.index import build_index, read_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions, read_record
from hico_core.data import decode
from hico_core.data.augment import central_crops
from hico_core.data.decode import decode_frames
from hico_core.data.other_decoders import require_decoder
from hico_core.data.pictures import Picture
from hico_core.encoding.lanes import Reading, WholeVideo, parts_of_video
from hico_core.encoding.windows import Grid

pytestmark = pytest.mark.videos

AS_THEY_ARE = SplitOptions(short_side=None, preset="ultrafast", crf=2, segment_seconds=1.0)


@pytest.mark.parametrize(
    ("matrix", "filters"),
    [
        ([1, 0, 0, 0, 1], []),
        ([-1, 0, 0, 0, 1], ["hflip"]),
        ([1, 0, 0, 0, -1], ["vflip"]),
        ([-1, 0, 0, 0, -1], ["hflip", "vflip"]),
        ([0, 1, 0, -1, 0], ["transpose=clock"]),
        ([0, -1, 0, 1, 0], ["transpose=cclock"]),
        ([0, 1, 0, 1, 0], ["transpose=cclock_flip"]),
        ([0, -1, 0, -1, 0], ["transpose=clock_flip"]),
        ([2, 0, 0, 0, 1], []),  # what it says of stretching is not obeyed
        ([0, 0, 0, 0, 0], []),
    ],
)
def test_display_matrices(matrix: list[int], filters: list[str]) -> None:
    assert turn_filters([*(65536 * entry for entry in matrix), 0, 0, 0, 1 << 30]) == filters


def test_margins_are_those_of_the_right_stream_and_not_what_a_title_says() -> None:
    dump = (
        "Input #0, mov, from '':\n  Metadata:\n    title: Frame Cropping: 9/9/9/9\n  Stream #0:0: Audio: aac\n"
        "    Side data:\n      Frame Cropping: 8/8/8/8\n  Stream #0:1: Video: h264\n    Side data:\n"
        "      Frame Cropping: 1/2/3/4\n  Stream #0:2: Video: h264\n      Frame Cropping: 0/0/0/0\n"
    )
    assert margins_in(dump, stream=1) == Margins(top=3, bottom=4, left=1, right=2)
    assert margins_in(dump, stream=2) is None
    assert margins_in(dump, stream=3) is None


def test_margins_keep_to_whole_samples_of_colour() -> None:
    pixels = av.VideoFormat("yuv420p", 160, 120)
    assert size_without(Margins(2, 3, 4, 5), 160, 120, pixels) == (150, 114)
    assert size_without(Margins(2, 3, 4, 5), 160, 120, av.VideoFormat("yuv444p", 160, 120)) == (151, 115)
    assert size_without(None, 161, 120, pixels) == (161, 120)


def make(path: Path, *output: str, filters: str = "null", seconds: float = 1.2, size: str = "160x120") -> Path:
    """Soft shapes that move and look alike from no two sides."""
    source = f"testsrc2=s={size}:d={seconds}:r=10,gblur=6,{filters}"
    how = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "2", "-bf", "2", "-pix_fmt", "yuv420p")
    run_ffmpeg("-f", "lavfi", "-i", source, *how, *output, path)
    return path


def turned(*how: str, pixels: str = "yuv420p") -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        flat = make(folder / "flat.mp4", "-pix_fmt", pixels)
        run_ffmpeg(*how, "-i", flat, "-c", "copy", folder / "a.mp4")
        return folder / "a.mp4"

    return made


def cropped(ending: str, *how: str, width: int, height: int, right: float, down: float) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        flat = make(folder / "flat.mp4")
        with_clean_aperture(flat, folder / "part.mp4", width=width, height=height, right=right, down=down)
        run_ffmpeg(*how, "-i", folder / "part.mp4", "-c", "copy", folder / f"a.{ending}")
        return folder / f"a.{ending}"

    return made


def encoded(name: str, *output: str, filters: str = "null", size: str = "160x120") -> Callable[[Path], Path]:
    return lambda folder: make(folder / name, *output, filters=filters, size=size)


def changing(
    *output: str, filters: str = "null", backwards: bool = False, size: str = "160x120"
) -> Callable[[Path], Path]:
    """From 1.2 s on, another encoding."""

    def made(folder: Path) -> Path:
        plain, other = ("11.2", "10") if backwards else ("10", "11.2")
        make(folder / "plain.ts", "-output_ts_offset", plain)
        make(folder / "other.ts", *output, "-output_ts_offset", other, filters=filters, size=size)
        parts = ["other.ts", "plain.ts"] if backwards else ["plain.ts", "other.ts"]
        (folder / "a.ts").write_bytes(b"".join((folder / part).read_bytes() for part in parts))
        return folder / "a.ts"

    return made


def photographs(folder: Path) -> Path:
    """Motion JPEG whose pictures say themselves, by EXIF, that they are to be turned."""
    with av.open(str(make(folder / "flat.mp4"))) as container:
        picture = Image.fromarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "a.jpg", exif=exif, quality=95)
    run_ffmpeg(
        "-loop", "1", "-framerate", "10", "-i", folder / "a.jpg", "-frames:v", "12", "-c", "copy", folder / "a.mkv"
    )
    return folder / "a.mkv"


FULL_RANGE = "scale=out_range=pc,setparams=range=pc"
BT709 = "scale=out_color_matrix=bt709,setparams=colorspace=bt709"
BT2020 = "scale=out_color_matrix=bt2020,setparams=colorspace=bt2020nc"

FILES: dict[str, Callable[[Path], Path]] = {
    "plain": encoded("a.mp4"),
    **{
        f"turned by {angle}{', mirrored' if flip else ''}": turned("-display_rotation", angle, *flip)
        for angle in ("0", "90", "180", "270")
        for flip in ((), ("-display_hflip",))
    },
    "upside down": turned("-display_vflip"),
    "4:2:2, turned": turned("-display_rotation", "90", pixels="yuv422p"),
    "10 bits, mirrored": turned("-display_hflip", pixels="yuv420p10le"),
    "clean aperture": cropped("mp4", width=152, height=112, right=0, down=0),
    "clean aperture to one side": cropped("mp4", width=141, height=101, right=1.5, down=2.5),
    "clean aperture, turned and mirrored": cropped(
        "mp4", "-display_rotation", "90", "-display_hflip", width=120, height=110, right=20, down=-3
    ),
    "PixelCrop": cropped("mkv", width=150, height=110, right=2, down=1),
    "cropped in the stream": encoded("a.mp4", "-bsf:v", "h264_metadata=crop_left=8:crop_top=4:crop_bottom=2"),
    "full range": encoded("a.mp4", filters=FULL_RANGE),
    "BT.709": encoded("a.mp4", filters=BT709),
    "BT.2020, 10 bits": encoded("a.mp4", "-pix_fmt", "yuv420p10le", filters=BT2020),
    "4:1:1": encoded("a.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv411p"),
    "odd sides": encoded("a.webm", "-c:v", "libvpx", "-crf", "4", "-b:v", "4M", size="157x117"),
    "pixels that are not square": encoded("a.mp4", "-aspect", "8:3"),
    "photographs": photographs,
    "range changes": changing(filters=FULL_RANGE),
    "range changes back": changing(filters=FULL_RANGE, backwards=True),
    "matrix changes": changing(filters=BT709),
    "matrix changes back": changing(filters=BT2020, backwards=True),
    "pixel format changes": changing("-pix_fmt", "yuv444p"),
}


@pytest.fixture(scope="module", params=FILES)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if ffmpeg_lacks(Ffmpeg(find_ffmpeg()).version, (8, 0)):
        pytest.skip("this ffmpeg does not do all by itself, or cannot make all the files")
    return FILES[request.param](tmp_path_factory.mktemp("picture"))


@pytest.fixture(scope="module")
def shown(video: Path) -> np.ndarray:
    return frames_of_ffmpeg(video, video.parent)


def test_decoded(video: Path, shown: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_frames(video, range(len(shown))).numpy(), shown)


def test_scaled_while_decoded(video: Path, shown: np.ndarray) -> None:
    small = decode_frames(video, [3], short_side=60).numpy()[0]
    height, width = shown.shape[1:3]
    assert min(small.shape[:2]) == 60
    assert (small.shape[0] > small.shape[1]) == (height > width)
    expected = np.asarray(Image.fromarray(shown[3]).resize(small.shape[1::-1], Image.Resampling.BICUBIC))
    assert np.abs(small.astype(float) - expected).mean() < 5


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_other_decoders_give_the_same_or_refuse(video: Path, shown: np.ndarray, decoder: DecoderName) -> None:
    try:
        require_decoder(decoder)
        pictures = decode_frames(video, range(len(shown)), decoder=decoder).numpy()
    except UsageError as error:
        pytest.skip(str(error))
    except BadVideo as refused:
        assert "use data.decoder=pyav" in str(refused)
    else:
        np.testing.assert_array_equal(pictures, shown)


def test_through_the_lanes(video: Path, shown: np.ndarray) -> None:
    """As features and probes read it."""
    picture = Picture(short_side=None, crop_part=1.0, num_crops=1, size=112, mean=(0.45,) * 3, std=(0.225,) * 3)
    parts = parts_of_video(
        0, WholeVideo(video, []), Reading(layout=Grid(fps=10.0, window=4, stride=4), picture=picture)
    )
    clips = np.concatenate([part.clips.numpy() for part in parts if part.clips is not None])
    (crop,) = central_crops(*shown.shape[1:3], part=1.0, count=1)
    expected = shown[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    np.testing.assert_array_equal(clips.reshape(-1, *clips.shape[2:]), expected)


def test_in_place(video: Path, shown: np.ndarray, tmp_path: Path) -> None:
    add_untrimmed(find_sources([str(video)]), root=tmp_path, options=UntrimmedOptions(), workers=1)
    build_index(tmp_path)
    rows = read_index(tmp_path)
    assert rows["num_frames"].sum() == len(shown)
    assert {(row.height, row.width) for row in rows.itertuples()} == {shown.shape[1:3]}


def test_split(video: Path, shown: np.ndarray, tmp_path: Path) -> None:
    """Up to the compression, and an odd last row and column."""
    split_videos(find_sources([str(video)]), root=tmp_path, options=AS_THEY_ARE, workers=1)
    record = read_record(tmp_path, "a")
    assert record is not None and record.failure is None, record
    clips = np.concatenate(
        [decode_frames(tmp_path / clip.path, range(clip.num_frames)).numpy() for clip in record.clips]
    )
    height, width = shown.shape[1] // 2 * 2, shown.shape[2] // 2 * 2
    assert clips.shape == (len(shown), height, width, 3)
    difference = np.abs(clips.astype(float) - shown[:, :height, :width]).mean(axis=(1, 2, 3))
    assert difference.max() < 2.5


def test_another_angle_is_refused_by_name_in_every_way_in(tmp_path: Path) -> None:
    path = turned("-display_rotation", "10")(tmp_path)
    reason = r"is shown rotated by (10|350) degrees; hico supports right angles only"
    with pytest.raises(BadVideo, match=reason):
        decode_frames(path, [0])
    for way in ("split", "index"):
        command: list[str | Path] = ["split", path] if way == "split" else ["index", "--untrimmed", path]
        done = hico(*command, "--root", tmp_path / way)
        assert done.returncode in {1, 3} and re.search(reason, done.stderr)


def test_a_size_that_changes_is_refused_by_name_and_time(tmp_path: Path) -> None:
    video = changing(size="80x60")(tmp_path)
    said = r"changes its frame size, from 160x120 to 80x60 at 1\.20 s; cut it there"
    split_videos(find_sources([str(video)]), root=tmp_path / "split", options=AS_THEY_ARE, workers=1)
    add_untrimmed(find_sources([str(video)]), root=tmp_path / "in place", options=UntrimmedOptions(), workers=1)
    for root in ("split", "in place"):
        record = read_record(tmp_path / root, "a")
        assert record is not None and record.failure is not None
        with pytest.raises(BadVideo, match=said):
            raise BadVideo(video, record.failure.error)


def test_a_new_rate_is_not_counted_across_a_change(tmp_path: Path) -> None:
    video = changing(filters=FULL_RANGE)(tmp_path)
    options = AS_THEY_ARE.model_copy(update={"fps": 5})
    split_videos(find_sources([str(video)]), root=tmp_path, options=options, workers=1)
    record = read_record(tmp_path, "a")
    assert record is not None and record.failure is not None
    assert "changes its colour format at 1." in record.failure.error


class OldFfmpeg(Ffmpeg):
    """The real program, told to leave alone what programs before 7.1 leave alone."""

    def __init__(self) -> None:
        super().__init__(find_ffmpeg())
        self.version = (7, 0)

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        return super().run(["-apply_cropping", "codec", *arguments], cwd=cwd, deadline=deadline, output=output)


def test_an_older_ffmpeg_shows_the_same_part_or_none(tmp_path: Path) -> None:
    if ffmpeg_lacks(Ffmpeg(find_ffmpeg()).version, (7, 1)):
        pytest.skip("this ffmpeg is an old one itself")

    def split_by_old(video: Path, folder: Path) -> Path:
        folder.mkdir()
        job = Job(source=video, options=AS_THEY_ARE, program=OldFfmpeg(), folder=folder, deadline=None)
        make_clips(job, on_corrupt="fail", verify="fast")
        return folder / "00000.mp4"

    (tmp_path / "a").mkdir()
    video = FILES["clean aperture to one side"](tmp_path / "a")
    clip = decode_frames(split_by_old(video, tmp_path / "clips"), [2]).numpy()[0]
    assert np.abs(clip.astype(float) - frames_of_ffmpeg(video, tmp_path)[2]).mean() < 2.5
    (tmp_path / "b").mkdir()
    video = FILES["clean aperture, turned and mirrored"](tmp_path / "b")
    with pytest.raises(BadVideo, match=r"is shown cropped and rotated, .* use ffmpeg 7\.1 or later"):
        split_by_old(video, tmp_path / "no clips")


@pytest.mark.parametrize("way_in", [untrimmed._look_at, shown_size_of, lambda path: decode_frames(path, [0])])
def test_pixels_that_cannot_be_converted_are_refused_by_name(
    way_in: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No container here can hold such pixels, so the frame is replaced after decoding."""
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:r=5:s=64x48", tmp_path / "a.mp4")
    way_in(tmp_path / "a.mp4")
    odd = VideoFrame(64, 48, "y210be")
    odd.time_base = Fraction(1, 5)
    for module in (untrimmed, probe_module, decode):
        monkeypatch.setattr(module, "without_margins", lambda frame, margins: odd)
    with pytest.raises(BadVideo, match=r"a\.mp4: its pixels \(y210be\) cannot be converted to RGB \(.*re-encode it$"):
        way_in(tmp_path / "a.mp4")


def test_the_log_level_stays_as_it_was(tmp_path: Path) -> None:
    before = av.logging.get_level()
    probe(make(tmp_path / "a.mp4"))
    with open_video(tmp_path / "a.mp4"):
        assert av.logging.get_level() == before
