"""A whole video is read once, whatever its rate, its files and its windows; each window has the frames it should."""

import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from av import VideoFrame
from full_disks import files_of_at_most
from made_videos import numbered_video, painted_number, run_ffmpeg, video_with_hidden_frames

from hico_core.base.errors import BadVideo, NoRoom
from hico_core.corpus.clips.probe import frame_times
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions
from hico_core.data import reading
from hico_core.data.clock import clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.data.pictures import Picture, crops_of
from hico_core.data.videos import IndexedVideos
from hico_core.encoding import lanes
from hico_core.encoding.lanes import Facts, Part, Reading, WholeVideo, parts_of_video, read_parts
from hico_core.encoding.windows import Grid, Views, plan_windows

pytestmark = pytest.mark.videos

WHOLE = Picture(short_side=None, crop_part=1.0, num_crops=1, size=112, mean=(0.45,) * 3, std=(0.225,) * 3)


def as_seen(layout: Grid | Views, picture: Picture = WHOLE) -> Reading:
    return Reading(layout=layout, picture=picture)


def read(video: WholeVideo, layout: Grid | Views, picture: Picture = WHOLE) -> torch.Tensor:
    """All clips of a video: (W, T, side, side, 3)."""
    parts = list(parts_of_video(0, video, as_seen(layout, picture)))
    clips = [part.clips for part in parts if part.clips is not None]
    assert [part.first_row for part in parts] == np.cumsum([0, *map(len, clips)])[:-1].tolist()
    assert {part.num_rows for part in parts} == {sum(map(len, clips))}
    return torch.cat(clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Square, so that the middle is all of a frame and its number can be read."""
    folder = tmp_path_factory.mktemp("lanes")
    numbered_video(folder / "steady.mp4", seconds=12, size="160x160")
    numbered_video(folder / "uneven.mp4", seconds=12, keep="not(between(t,3,9.5))", size="160x160")
    numbered_video(folder / "dropped.mkv", seconds=8, keep="gt(random(5),0.3)", size="160x160")
    video_with_hidden_frames(folder / "hidden.webm", seconds=5, size="160x160")
    return folder


LAYOUTS = [
    Grid(fps=15.0, window=16, stride=16),
    Grid(fps=30.0, window=8, stride=3),
    Grid(fps=4.0, window=8, stride=20),
    Views(1, 8, 4, 30.0),
    Views(10, 8, 4, 30.0),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["steady.mp4", "uneven.mp4", "dropped.mkv", "hidden.webm"])
def test_windows_are_those_that_were_planned(folder: Path, name: str, layout: Grid | Views) -> None:
    """The slow twin decodes each window by itself."""
    path = folder / name
    windows = plan_windows(clock_of_times(frame_times(path)), layout)
    clips = read(WholeVideo(path, []), layout)
    assert len(clips) == len(windows)
    for clip, window in zip(clips, windows.tolist(), strict=True):
        assert torch.equal(clip, decode_frames(path, window))


def indexed(folder: Path, root: Path, *, split: bool) -> IndexedVideos:
    sources = find_sources([str(folder / name) for name in ("steady.mp4", "uneven.mp4")])
    if split:
        options = SplitOptions(short_side=160, preset="ultrafast", crf=10)
        split_videos(sources, root=root, options=options, workers=2, on_event=lambda event: None)
    else:
        add_untrimmed(sources, root=root, options=UntrimmedOptions(), workers=2, on_event=lambda event: None)
    build_index(root)
    return IndexedVideos(read_index_table(root), root=root)


def numbers_of(clips: torch.Tensor) -> list[list[int]]:
    return [[painted_number(picture.numpy()) for picture in clip] for clip in clips]


@pytest.mark.parametrize("split", [True, False], ids=["split", "in place"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_indexed_video_has_the_windows_of_its_file(
    folder: Path, tmp_path: Path, layout: Grid | Views, split: bool
) -> None:
    videos = indexed(folder, tmp_path / "root", split=split)
    for number in range(len(videos)):
        path = folder / f"{videos.video_id(number)}.mp4"
        of_index = read(WholeVideo(path, videos.pieces(number)), layout)
        of_file = read(WholeVideo(path, []), layout)
        assert numbers_of(of_index) == numbers_of(of_file)
        if not split:
            assert torch.equal(of_index, of_file)


def test_a_long_video_of_variable_rate_is_looked_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many views are asked for, and however many rows the index has of it."""
    videos = indexed(folder, tmp_path / "root", split=False)
    number = [videos.video_id(n) for n in range(len(videos))].index("uneven")
    assert videos.pieces(number)[0].variable_fps
    assert len(videos.pieces(number)) > 1
    asked: list[str] = []

    def counting(path: Path | str) -> list[float]:
        asked.append(str(path))
        return frame_times(path)

    monkeypatch.setattr(reading, "frame_times", counting)
    read(WholeVideo(folder / "uneven.mp4", videos.pieces(number)), Views(10, 8, 4, 30.0))
    assert asked == [str(folder / "uneven.mp4")]


def test_each_frame_is_decoded_once_and_only_if_it_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(frame: VideoFrame, picture: Picture) -> list[np.ndarray]:
        seen.append(painted_number(frame.to_ndarray(format="rgb24")))
        return crops_of(frame, picture)

    monkeypatch.setattr(lanes, "crops_of", counting)
    read(WholeVideo(folder / "steady.mp4", []), Grid(fps=15.0, window=16, stride=4))  # each frame is in four windows
    assert seen == list(range(0, 360, 2)), "every second frame, since the grid has half the rate"
    seen.clear()
    read(WholeVideo(folder / "steady.mp4", []), Grid(fps=2.0, window=8, stride=12))  # two seconds lie between windows
    assert seen == [point * 15 for point in range(24) if point % 12 < 8]


def test_pictures_do_not_pile_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held of a video is a window, not the video."""
    made: list[weakref.ref[np.ndarray]] = []

    def remembering(frame: VideoFrame, picture: Picture) -> list[np.ndarray]:
        crops = crops_of(frame, picture)
        made.extend(map(weakref.ref, crops))
        return crops

    monkeypatch.setattr(lanes, "crops_of", remembering)
    stream = parts_of_video(0, WholeVideo(folder / "steady.mp4", []), as_seen(Grid(fps=30.0, window=8, stride=8)))
    sizes = [sum(crop() is not None for crop in made) for _ in stream]
    assert 0 < max(sizes) <= 8 and len(sizes) > 10 and len(made) == 360


def test_three_crops_follow_each_other(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=3, size="200x100")
    picture = Picture(short_side=None, crop_part=0.5, num_crops=3, size=112, mean=(0.45,) * 3, std=(0.225,) * 3)
    clips = read(WholeVideo(tmp_path / "a.mp4", []), Views(2, 8, 4, 30.0), picture)
    windows = plan_windows(clock_of_times(frame_times(tmp_path / "a.mp4")), Views(2, 8, 4, 30.0)).tolist()
    whole = [decode_frames(tmp_path / "a.mp4", window) for window in windows]
    assert len(clips) == 6
    for row, clip in enumerate(clips):
        left = (0, 75, 150)[row % 3]
        assert torch.equal(clip, whole[row // 3][:, 25:75, left : left + 50])


@pytest.mark.parametrize(
    ("size", "short_side", "side"), [("320x160", 128, 112), ("160x320", 128, 112), ("64x96", 128, 56)]
)
def test_the_middle_of_a_frame(tmp_path: Path, size: str, short_side: int, side: int) -> None:
    """Larger frames are scaled down first; the middle is as far from one edge as from the other."""
    edges = "drawbox=x=0:y=0:w=iw:h=ih:t=4:color=red"
    run_ffmpeg("-f", "lavfi", "-i", f"color=gray:s={size}:d=1:r=30", "-vf", edges, "-crf", "1", tmp_path / "a.mp4")
    picture = Picture(short_side=short_side, crop_part=0.875, num_crops=1, size=112, mean=(0.45,) * 3, std=(0.225,) * 3)
    (clip,) = read(WholeVideo(tmp_path / "a.mp4", []), Views(1, 8, 1, 30.0), picture)
    assert clip.shape == (8, side, side, 3)
    shown = clip[0].float()
    assert torch.allclose(shown.mean(dim=2), shown.mean(dim=2).flip(0, 1), atol=6), "it is not the middle"


def test_a_change_of_size_is_a_bad_video(tmp_path: Path) -> None:
    """As broadcasts have it: 4:3 in the middle of 16:9."""
    how = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0")
    numbered_video(tmp_path / "small.ts", seconds=2, size="160x120", output=how)
    numbered_video(tmp_path / "large.ts", seconds=2, size="320x180", output=(*how, "-output_ts_offset", "3"))
    (tmp_path / "both.ts").write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / "large.ts").read_bytes())
    with pytest.raises(BadVideo, match=r"both\.ts: changes its frame size"):
        read(WholeVideo(tmp_path / "both.ts", []), Grid(fps=15.0, window=48, stride=16))
    with av.open(str(tmp_path / "both.ts")) as container:
        count = sum(1 for _ in container.decode(video=0))
    with pytest.raises(BadVideo, match="changes its frame size"):
        decode_frames(tmp_path / "both.ts", [0, count - 1])


def test_a_bad_video_is_one_part_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    videos = [WholeVideo(tmp_path / "bad.mp4", []), WholeVideo(folder / "steady.mp4", [])]
    for workers in (0, 2):
        parts: list[Part] = list(read_parts(videos, as_seen(Grid(fps=15.0, window=16, stride=16)), workers=workers))
        (bad,) = [part for part in parts if part.video == 0]
        assert bad.clips is None and "bad.mp4: cannot be opened" in str(bad.bad)
        assert sum(len(part.clips) for part in parts if part.clips is not None) == 12


def test_full_shared_memory_is_an_error_of_the_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of PyTorch's thread that sends parts, whose errors reach nobody: the reader would wait for ever."""
    reading = as_seen(Grid(fps=15.0, window=16, stride=16))
    in_worker = lanes._Lanes([(0, WholeVideo(folder / "steady.mp4", []))], reading)
    monkeypatch.setattr(lanes, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    with files_of_at_most(1_000_000), pytest.raises(NoRoom, match=r"/dev/shm: no room for another 4\.9 MB"):
        next(iter(in_worker))
    assert all(part.clips is not None and part.clips.is_shared() for part in in_worker)


@pytest.mark.parametrize(("size", "windows_at_once"), [(32, [4, 4, 4]), (160, [1] * 12), (112, [3, 3, 3, 3])])
def test_large_windows_are_sent_in_smaller_numbers(folder: Path, size: int, windows_at_once: list[int]) -> None:
    """16 frames of 112 x 112 pixels, normalised, are 2.4 MB."""
    reading = Reading(layout=Grid(fps=15.0, window=16, stride=16), picture=replace(WHOLE, size=size), normalise=True)
    parts = parts_of_video(0, WholeVideo(folder / "steady.mp4", []), reading)
    assert [len(part.clips) for part in parts if part.clips is not None] == windows_at_once


def test_a_hole_of_hours_is_refused_by_name(tmp_path: Path) -> None:
    """It would be thousands of windows that show one frame."""
    path = tmp_path / "hole.mkv"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=d=2:r=30:s=64x64", "-vf", "setpts='if(gte(N,30),PTS+4000/TB,PTS)'"),
        *("-fps_mode", "passthrough", "-c:v", "libx264", path),
    )
    with pytest.raises(BadVideo, match=r"hole\.mkv: has 60 frames in 40\d\d s: nearly all of it is a single still"):
        next(parts_of_video(0, WholeVideo(path, []), as_seen(Grid(fps=15.0, window=16, stride=16))))


FACTS = Facts(30, 30.0, 1.0)
CLIPS = torch.zeros(2, 8, 5, 5, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "or says why it has none"),
        ({"clips": CLIPS, "num_rows": 2}, "or says why it has none"),
        ({"clips": CLIPS, "num_rows": 1, "facts": FACTS}, "2 clips from row 0 on do not fit into 1"),
        ({"clips": CLIPS, "first_row": 1, "num_rows": 2, "facts": FACTS}, "2 clips from row 1 on do not fit into 2"),
        ({"clips": CLIPS[:0], "num_rows": 2, "facts": FACTS}, "0 clips from row 0 on"),
        ({"clips": CLIPS[:, :, :4], "num_rows": 2, "facts": FACTS}, r"not \(2, 8, 4, 5, 3\) torch.uint8"),
        ({"clips": CLIPS.permute(0, 4, 1, 2, 3), "num_rows": 2, "facts": FACTS}, r"not \(2, 3, 8, 5, 5\)"),
        ({"clips": CLIPS.double(), "num_rows": 2, "facts": FACTS}, "torch.float64"),
    ],
)
def test_a_part_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    Part(video=0, clips=CLIPS, num_rows=2, facts=FACTS)
    Part(video=0, bad=BadVideo("a.mp4", "is cut short"))
    with pytest.raises(ValueError, match=problem):
        Part(video=0, **fields)
