"""A folder of numbered pictures is a video: the one that a lossless file of the same frames would be."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import assert_one_line, hico
from made_videos import run_ffmpeg
from torch import Tensor, nn

from hico_core.base.errors import BadVideo, UsageError
from hico_core.base.failures import read_failures
from hico_core.base.tally import VideoEvent
from hico_core.corpus.index import build_index, read_index, read_index_table
from hico_core.corpus.sources.finding import find_sources, videos_among
from hico_core.corpus.sources.frame_folders import in_order
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.check import check_files
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions, source_file
from hico_core.data.decode import decode_frames
from hico_core.data.reading import read_clip
from hico_core.data.videos import IndexedVideos
from hico_core.model.pooling import PooledEncoder
from hico_core.transfer.extraction.jobs import jobs_of, jobs_of_files
from hico_core.transfer.features import FeatureExtractor


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ("img_00002.jpg img_00001.jpg", "img_00001.jpg img_00002.jpg"),
        ("img_10.jpg img_9.jpg img_11.jpg", "img_9.jpg img_10.jpg img_11.jpg"),  # no padding
        ("099.png 100.png", "099.png 100.png"),
        ("0.png", "0.png"),
        ("50%d-7.JPEG 50%d-8.JPEG", "50%d-7.JPEG 50%d-8.JPEG"),  # nothing in a name is a pattern
        ("a2b1.png a2b2.png", "a2b1.png a2b2.png"),
    ],
)
def test_pictures_are_ordered_by_their_numbers(names: str, ordered: str) -> None:
    assert in_order(names.split()) == ordered.split()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("", "contains no numbered pictures"),
        ("i_1.jpg i_2.jpg i_4.jpg", "lacks picture number 3: i_2.jpg is followed by i_4.jpg"),
        ("i_1.jpg i_2.png", "two kinds of names, i_1.jpg and i_2.png"),
        ("flow_1.jpg i_1.jpg", "two kinds of names, flow_1.jpg and i_1.jpg"),
        ("i_1.jpg i_01.jpg", "two pictures with the same number, i_01.jpg and i_1.jpg"),
        ("i_1.jpg cover.jpg", "contains the picture cover.jpg without a number"),
    ],
)
def test_what_is_no_video_is_refused_by_name(names: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        in_order(names.split())


@pytest.mark.parametrize(
    ("names", "taken", "passed_over"),
    [
        ("1.jpg 2.jpg", ["."], 0),
        ("v/1.jpg v/2.jpg w/1.jpg x.mp4", ["v", "w", "x.mp4"], 0),
        ("v/1.jpg v/cover.jpg v/labels.txt", ["v"], 1),  # whether its names fit is said of the video
        ("v/x.mp4 v/1.jpg", ["v/x.mp4"], 1),  # a picture beside videos makes no folder of frames
        ("v/cover.jpg", [], 1),
        (".v/1.jpg v/.1.jpg", [], 2),
        ("deep/v/1.jpg", ["deep/v"], 0),
    ],
)
def test_which_folders_are_videos(names: str, taken: list[str], passed_over: int) -> None:
    counted: Counter[str] = Counter()
    assert videos_among(names.split(), counted, frame_folders=True) == taken
    assert counted.total() == passed_over


def make_pictures(folder: Path, *, suffix: str = "png", frames: int = 65, first: int = 8, size: str = "64x48") -> Path:
    folder.mkdir(parents=True)
    moving = f"testsrc2=s={size}:r=10:d={frames / 10}"
    run_ffmpeg("-f", "lavfi", "-i", moving, "-start_number", str(first), folder / f"i%d.{suffix}")
    return folder


def test_ways_in(tmp_path: Path) -> None:
    for name in ("v_a.1/1.jpg", "v_a.1/2.jpg", "b/3.png", "gap/1.png", "gap/3.png"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    (tmp_path / "list.txt").write_text("all/b\nall/v_a.1\n")

    def found(*inputs: str) -> list[Source]:
        return find_sources([str(tmp_path / one) for one in inputs], frame_rate=25)

    assert [(s.video_id, s.path.name, s.frame_rate) for s in found("list.txt")] == [
        ("a.1", "v_a.1", 25.0),
        ("b", "b", 25.0),
    ]
    assert found("all/b", "all/v_a.1") == found("list.txt") == found("all/[bv]*")
    assert [(s.video_id, s.obstacle is None) for s in found("all")] == [("a.1", True), ("b", True), ("gap", False)]
    (by_path,) = find_sources([str(tmp_path / "all/b")], id_rule="relpath", frame_rate=25)
    assert by_path.video_id == "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "all/b")
        assert find_sources(["."], frame_rate=25) == found("all/b")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_a_positive_number(rate: float, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    with pytest.raises(UsageError, match="--frame-rate"):
        find_sources([str(tmp_path)], frame_rate=rate)


def test_whatever_changes_in_a_folder_makes_it_another_video(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    source = Source(video_id="a", path=tmp_path, frame_rate=25.0)
    identities = [source_file(source), source_file(Source(video_id="a", path=tmp_path, frame_rate=30.0))]
    for change in (
        lambda: (tmp_path / "1.jpg").rename(tmp_path / "3.jpg"),  # keeps sizes and times of all
        lambda: os.utime(tmp_path / "3.jpg", ns=(0, 1)),  # the latest time of all stays the same
        lambda: (tmp_path / "notes.txt").touch(),
    ):
        change()
        identities.append(source_file(source))
    assert len({one.sha256 for one in identities}) == len(identities) - 1
    assert identities[-1] == identities[-2]  # a text beside the pictures is none of them


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


# Pixels of JPEG files keep their full range only in a copy.
LOSSLESS = {"png": ("-c:v", "ffv1"), "jpg": ("-c", "copy")}


@pytest.fixture(scope="module", params=LOSSLESS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Source]:
    """A frame folder, and a file of its frames."""
    folder, suffix = tmp_path_factory.mktemp(request.param), request.param
    pictures = make_pictures(folder / "a", suffix=suffix)
    run_ffmpeg(
        *("-framerate", "10", "-start_number", "8", "-i", pictures / f"i%d.{suffix}"),
        *(*LOSSLESS[suffix], folder / "a.nut"),
    )
    (frames,) = find_sources([str(pictures)], frame_rate=10)
    (file,) = find_sources([str(folder / "a.nut")])
    return frames, file


@pytest.mark.videos
def test_clips_are_those_of_a_lossless_file(both: tuple[Source, Source], tmp_path: Path) -> None:
    lossless = SplitOptions(preset="ultrafast", crf=0, short_side=None)
    tables, clips = [], []
    for number, source in enumerate(both):
        root = tmp_path / str(number)
        assert split_videos([source], root=root, options=lossless, workers=1).num_failed == 0
        build_index(root)
        tables.append(read_index(root).drop(columns=["source", "size_bytes", "sha256"]))
        paths = tables[-1]["path"]
        clips.append([decode_frames(root / path, range(count)) for path, count in zip(paths, (50, 15), strict=True)])
    assert tables[0].equals(tables[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*clips, strict=True))


@pytest.mark.videos
def test_in_place_it_is_read_like_a_lossless_file(both: tuple[Source, Source], tmp_path: Path) -> None:
    tables, clips, jobs = [], [], []
    for number, source in enumerate(both):
        root = tmp_path / str(number)
        assert add_untrimmed([source], root=root, options=UntrimmedOptions(), workers=1).num_failed == 0
        build_index(root)
        assert list(check_files(root)) == []
        tables.append(read_index(root).drop(columns=["source", "path", "codec", "keyframe_interval", "size_bytes"]))
        pieces = IndexedVideos(read_index_table(root), root=root).pieces(0)
        clips.append(
            [
                read_clip(pieces, (t, t + 2), num_frames=16, decoder="auto", short_side=side)
                for t in (0, 3.7, 4.5)
                for side in (None, 32)
            ]
        )
        jobs += [*jobs_of_files([source]), *jobs_of(None, root)]
    assert tables[0].equals(tables[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*clips, strict=True))
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), device=torch.device("cpu"))
    first, *others = list(extractor.extract_all([job.video for job in jobs], workers=0))
    assert not isinstance(first, BadVideo) and len(first.array) > 1
    for other in others:
        assert not isinstance(other, BadVideo)
        assert np.array_equal(first.array, other.array) and np.array_equal(first.times, other.times)


def indexed(root: Path) -> pd.DataFrame:
    build_index(root)
    return read_index(root)


@pytest.mark.videos
@pytest.mark.parametrize(("command", "root"), [(["split", "in"], "split"), (["index", "--untrimmed", "in"], "indexed")])
def test_bad_folders_are_named_and_the_others_done(command: list[str], root: str, tmp_path: Path) -> None:
    for name in ("good", "gap", "two sizes"):
        make_pictures(tmp_path / "in" / name, frames=4, first=1)
    (tmp_path / "in/gap/i2.png").unlink()
    make_pictures(tmp_path / "large", frames=1, first=5, size="96x48")
    (tmp_path / "large/i5.png").rename(tmp_path / "in/two sizes/i5.png")
    (tmp_path / "in/empty").mkdir()
    (tmp_path / "in/empty/1.jpg").touch()
    assert_one_line(
        hico(*command, "--root", root, cwd=tmp_path),
        2,
        "numbered pictures, not videos; to read them as frames, use --frame-rate N",
    )
    for rate in ("2", "4"):  # at another rate, it is another video
        assert hico(*command, "--root", root, "--frame-rate", rate, cwd=tmp_path).returncode == 3
        assert list(indexed(tmp_path / root)["fps"]) == [float(rate)]
    failures = {Path(line.source).name: line.error for line in read_failures(tmp_path / root)}
    assert failures == {
        "gap": "lacks picture number 2: i1.png is followed by i3.png; add the missing ones, or renumber the pictures",
        "two sizes": "has pictures of two sizes: i1.png is 64x48, i5.png is 96x48; resize them to one size",
        "empty": "1.jpg is empty, damaged or not a picture",
    }


@pytest.mark.videos
def test_a_known_folder_is_left_alone_until_it_changes(tmp_path: Path) -> None:
    make_pictures(tmp_path / "a", frames=4, first=1)

    def outcome(rate: float = 2.0) -> str:
        events: list[VideoEvent] = []
        options = SplitOptions(preset="ultrafast")
        split_videos(
            find_sources([str(tmp_path / "a")], frame_rate=rate),
            root=tmp_path / "root",
            options=options,
            workers=1,
            on_event=events.append,
        )
        return events[0].outcome

    assert [outcome(), outcome(), outcome(4.0), outcome(4.0)] == ["done", "unchanged", "done", "unchanged"]
    os.utime(tmp_path / "a/i2.png", ns=(0, 1))
    assert [outcome(4.0), outcome(4.0)] == ["done", "unchanged"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["split", "files", "--frame-rate", "25"], ["--frame-rate 25: none of the inputs is a folder of numbered"]),
        (["split", "frames", "--frame-rate", "-1"], ["--frame-rate -1: must be from 0.001 to 1000"]),
        (["index", "--frame-rate", "25"], ["--frame-rate: needs --untrimmed"]),
        (["extract-features", "--frame-rate", "25"], ["--frame-rate: needs INPUTS"]),
    ],
)
def test_a_rate_without_frame_folders_is_a_mistake(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    for name in ("files/a.mp4", "frames/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert_one_line(hico(*arguments, cwd=tmp_path), 2, *parts)
