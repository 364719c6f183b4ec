"""One clock: whichever way a video comes in, a moment of it shows the same frame, which is the one a player shows."""

import random
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import numbered_video, painted_number, run_ffmpeg

from hico_core.corpus.clips.probe import frame_times
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions
from hico_core.data.clock import Clock, clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.data.reading import clock_of, decode_pieces, read_clip, whole_file
from hico_core.data.sampling import view_indices
from hico_core.data.videos import IndexedVideos, Piece
from hico_core.encoding.windows import Grid, Views, plan_windows

SPAN = 64 / 30
RATES = [
    *("1/10", "2/5", "1", "12", "15000/1001", "15", "24000/1001", "24", "25", "30000/1001", "30", "50"),
    *("60000/1001", "120", "240"),
]
# How much a container rounds times: (ticks a second) of mp4 at a usual clock, Matroska and WebM, transport streams.
CLOCKS = {"mp4": None, "mkv": 1000, "ts": 90_000}


def stamps_of(fps: str, container: str, count: int) -> list[float]:
    rate, ticks = Fraction(fps), CLOCKS[container]
    exact = [number / rate for number in range(count)]
    return [float(moment if ticks is None else Fraction(round(moment * ticks), ticks)) for moment in exact]


@pytest.mark.parametrize("container", CLOCKS)
@pytest.mark.parametrize("fps", RATES)
def test_rounding_of_times_holds_no_frame_back(fps: str, container: str) -> None:
    """The twin: the last frame whose exact time, a fraction, is not behind the moment."""
    rate = Fraction(fps)
    count = max(int(20 * rate), 6)
    exact = [number / rate for number in range(count)]
    clock = clock_of_times(stamps_of(fps, container, count))
    assert clock.stamps is None and clock.fps == pytest.approx(float(rate), rel=1e-4)
    assert clock.duration_seconds == pytest.approx(float(count / rate), abs=2e-3)
    for grid in (Fraction(15), Fraction(30), Fraction(15, 2)):
        points = [k / grid for k in range(int(count / rate * grid))]
        expected = [bisect_right(exact, moment) - 1 for moment in points[:400]]
        assert clock.shown_at([float(moment) for moment in points[:400]]).tolist() == expected


@pytest.mark.parametrize(
    ("seconds", "fps", "shown"),
    [
        ([0.0, 0.5, 1.0, 1.5], 1.0, [0, 2]),  # every second frame
        ([0.0, 1.0], 2.0, [0, 0, 1, 1]),  # each frame twice
        ([0.0], 2.0, [0, 0]),  # one frame lasts a second
        ([0.0, 1 / 3 + 1e-9, 2 / 3 + 1e-9], 3.0, [0, 1, 2]),  # rounding holds no frame back
        ([0.0, 0.4, 2.0], 1.0, [0, 1, 2]),
        ([0.0, 0.5, 1.0, 4.0], 1.0, [0, 2, 2, 2, 3]),  # a hole repeats the frame before it, and lengthens no other
    ],
)
def test_grid(seconds: list[float], fps: float, shown: list[int]) -> None:
    assert clock_of_times(seconds).on_grid(fps=fps).tolist() == shown


def test_a_variable_rate_shows_what_a_player_shows() -> None:
    """The slow twin: point by point, frame by frame."""
    rng = random.Random(0)
    for _ in range(200):
        gaps = [rng.choice([0.04, 0.033, 0.5, 0.001, 2.0]) for _ in range(rng.randrange(3, 30))]
        seconds = [0.0, *np.cumsum(gaps).tolist()]
        clock, fps = clock_of_times(seconds), rng.choice([15.0, 30.0, 7.5])
        if clock.stamps is None:
            continue
        period = float(np.median(np.diff(seconds)))
        expected: list[int] = []
        while len(expected) / fps < seconds[-1] + period - 1e-6:
            moment = len(expected) / fps
            expected.append(max(n for n, shown_from in enumerate(seconds) if shown_from <= moment + 1e-6))
        assert clock.on_grid(fps=fps).tolist() == expected


def test_the_middle_of_a_variable_video_is_counted_in_the_whole() -> None:
    whole = [0.0, 0.1, 0.5, 2.0, 2.1, 7.0]
    part = Clock(fps=1.0, num_frames=6, period_seconds=0.4, stamps=np.array(whole[2:5]), first=2)
    moments = [0.5, 1.9, 2.0, 2.1, 3.0]
    assert part.shown_at(moments).tolist() == clock_of_times(whole).shown_at(moments).tolist() == [2, 2, 3, 4, 4]


def test_positions_late_in_a_day_are_those_at_its_beginning() -> None:
    """Counted from the beginning of the video, float32 has no room for fractions of frames after some hours."""
    clock = clock_of_times([k / 30 for k in range(30 * 60)])
    day = Clock(fps=30.0, num_frames=24 * 3600 * 30, period_seconds=1 / 30)
    early, late = (c.of_window((t + 2.0, t + 2.0 + SPAN), num_frames=16) for c, t in ((clock, 0), (day, 80_000)))
    assert [frame - 80_000 * 30 for frame in late] == early


# name: how it is made. The containers' clocks are those of their muxers.
VIDEOS: dict[str, tuple[str, float, str, tuple[str, ...]]] = {
    f"{name} {container}": (fps, seconds, keep, codec)
    for container, codec in {
        "mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-bf", "2"),
        "mkv": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-bf", "2"),
        "webm": ("-c:v", "libvpx", "-crf", "4", "-b:v", "4M", "-deadline", "realtime", "-cpu-used", "8"),
        "ts": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-bf", "2"),
        "avi": (
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-crf",
            "10",
            "-bf",
            "2",
        ),  # has only times of decoding
    }.items()
    for name, fps, seconds, keep in [
        ("lapse", "1/10", 60.0, "1"),
        ("slow", "2/5", 40.0, "1"),
        ("one", "1", 12.0, "1"),
        ("film", "24000/1001", 8.0, "1"),
        ("half ntsc", "15000/1001", 7.0, "1"),
        ("ntsc", "30000/1001", 12.0, "1"),
        ("thirty", "30", 11.0, "1"),
        ("sixty", "60000/1001", 6.0, "1"),
        ("fast", "240", 4.0, "1"),
        ("hole", "30", 12.0, "not(between(t,3,7.7))"),
        ("dropped", "25", 9.0, "gt(random(3),0.3)"),
    ]
    if container != "avi" or name in {"film", "thirty"}
}


class Ways:
    """A video's ways in: clips of a split, rows of its file in place, and the file itself."""

    def __init__(self, folder: Path, name: str) -> None:
        (self.path,) = folder.glob(f"{name}.*")
        indexes = [IndexedVideos(read_index_table(folder / way), root=folder / way) for way in ("split", "in place")]
        number = [indexes[0].video_id(place) for place in range(len(indexes[0]))].index(name)
        piece, _ = whole_file(self.path)
        self.duration_seconds = indexes[0].duration_seconds(number)
        self.pieces: dict[str, list[Piece]] = {
            "split": indexes[0].pieces(number),
            "in place": indexes[1].pieces(number),
            "directly": [piece],
        }
        self._indexes, self._number, self._whole = indexes, number, piece

    def pieces_of(self, window: tuple[float, float]) -> list[list[Piece]]:
        return [*(index.pieces(self._number, window) for index in self._indexes), [self._whole]]

    def frames_of_window(self, window: tuple[float, float]) -> list[list[int]]:
        return [clock_of(pieces).of_window(window, num_frames=16) for pieces in self.pieces_of(window)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    for name, (fps, seconds, keep, codec) in VIDEOS.items():
        container = name.rsplit(" ", 1)[1]
        numbered_video(folder / f"{name}.{container}", seconds=seconds, fps=fps, keep=keep, output=codec)
    sources = find_sources([str(folder)])
    options = SplitOptions(short_side=None, preset="ultrafast", crf=10)
    split = split_videos(sources, root=folder / "split", options=options, workers=2, on_event=lambda event: None)
    untrimmed = UntrimmedOptions()
    there = add_untrimmed(sources, root=folder / "in place", options=untrimmed, workers=2)
    assert split.num_failed == there.num_failed == 0
    build_index(folder / "split")
    build_index(folder / "in place")
    return folder


@pytest.mark.videos
@pytest.mark.parametrize("name", VIDEOS)
def test_every_way_in_shows_the_same_frames(folder: Path, name: str) -> None:
    """Training windows, views and grids; and the pixels of one window, by the numbers painted on them."""
    ways = Ways(folder, name)
    rng = random.Random(name)
    last = max(ways.duration_seconds - SPAN, 0.0)
    moments = [0.0, last, *(rng.uniform(0, last) for _ in range(40)), *(5.0 * k for k in range(1, int(last / 5) + 1))]
    for start in moments:
        found = ways.frames_of_window((start, start + SPAN))
        assert found[0] == found[1] == found[2], start
    views: list[Grid | Views] = [Views(1, 16, 4, 30.0), Views(10, 16, 4, 30.0)]
    grids: list[Grid | Views] = [
        Grid(fps=15.0, window=16, stride=16),
        Grid(fps=30.0, window=8, stride=3),
        Grid(fps=None, window=8, stride=8),
    ]
    for layout in views + grids:
        planned = [plan_windows(clock_of(pieces), layout) for pieces in ways.pieces.values()]
        assert planned[0].tolist() == planned[1].tolist() == planned[2].tolist()
    window = (last / 2, last / 2 + SPAN)
    numbers = []
    for pieces in ways.pieces_of(window):
        clip = read_clip(pieces, window, num_frames=16, decoder="auto")
        numbers.append([painted_number(picture.numpy()) for picture in clip])
    assert numbers[0] == numbers[1] == numbers[2]


@pytest.mark.videos
@pytest.mark.parametrize("name", VIDEOS)
def test_they_are_the_frames_that_decoding_shows(folder: Path, name: str) -> None:
    """The slow obvious twin: all frames decoded in order, and the last one whose time has come."""
    ways = Ways(folder, name)
    with av.open(str(ways.path)) as container:
        frames = list(container.decode(video=0))
        ticks = [frame.pts or 0 for frame in frames]
        if name.endswith("avi"):
            ticks.sort()
        base = frames[0].time_base or Fraction(0)
        seconds = [float((tick - ticks[0]) * base) for tick in ticks]
    piece = ways.pieces["directly"][0]
    clock = clock_of([piece])
    assert frame_times(ways.path) == pytest.approx(seconds) and clock.num_frames == len(frames)
    tick = 1.1e-3 if name.endswith(("mkv", "webm")) else 2e-5  # what the container's rounding may move a time by
    for k, shown in enumerate(clock.on_grid(fps=15.0).tolist()):
        late, early = (max(n for n, t in enumerate(seconds) if t <= max(k / 15 + d, 0)) for d in (tick, -tick))
        assert early <= shown <= late
    views = Views(3, 16, 4, 30.0)
    for view, row in enumerate(plan_windows(clock, views).tolist()):
        counted = view_indices(
            total_frames=len(frames), fps=clock.fps, view=view, num_views=3, num_frames=16, stride=4, target_fps=30.0
        )
        if clock.stamps is None:
            assert row == counted
        else:
            assert row == [max(n for n, t in enumerate(seconds) if t <= c / clock.fps + 1e-6) for c in counted]


@pytest.mark.videos
def test_a_time_lapse_of_lapses_trains(folder: Path) -> None:
    """A frame each 10 s: of every clip of 2.1 s one can say what is shown."""
    ways = Ways(folder, "lapse mp4")
    for start in np.linspace(0, ways.duration_seconds - SPAN, 200):
        window = (float(start), float(start + SPAN))
        (frames,) = {tuple(found) for found in ways.frames_of_window(window)}
        assert set(frames) <= {int(window[0] / 10), int(window[1] / 10)} and min(frames) == int(window[0] / 10)


@pytest.mark.videos
@pytest.mark.parametrize("frames", [[0, 1], [148, 149, 150, 151], [299, 300], [5, 5, 6]])
def test_pixels_by_number(folder: Path, frames: list[int]) -> None:
    """However an index cuts a video into pieces, they are the file's frames."""
    pieces = Ways(folder, "thirty mp4").pieces["in place"]
    assert len(pieces) == 3
    read = decode_pieces(pieces, frames, decoder="auto")
    assert (read == decode_frames(str(pieces[0].path), frames)).all()


@pytest.mark.videos
def test_an_edit_list_moves_no_frame(tmp_path: Path) -> None:
    """A file whose container begins elsewhere than its first frame: counting by rate begins at the frame."""
    numbered_video(tmp_path / "whole.mp4", seconds=6)
    run_ffmpeg("-itsoffset", "1.3", "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "late.mp4")
    run_ffmpeg("-ss", "1.2", "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "cut.mp4")
    for name in ("late.mp4", "cut.mp4"):
        piece, clock = whole_file(tmp_path / name)
        assert not piece.variable_fps and clock.fps == 30
        wanted = list(range(3, clock.num_frames, 11))
        by_rate = decode_frames(tmp_path / name, wanted, constant_fps=30.0)
        assert (by_rate == decode_frames(tmp_path / name, wanted)).all()
