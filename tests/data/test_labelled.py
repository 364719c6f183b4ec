"""Random clips of labelled videos, of the right frames."""

import random

import pytest
import torch
from made_videos import numbered_video, painted_number

from hico_core.config import AugmentConfig, DataConfig
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.lists import labelled_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import UntrimmedOptions
from hico_core.data.dataset import ClipRequest
from hico_core.data.decode import decode_frames
from hico_core.data.labelled import RandomViews
from hico_core.data.reading import clock_of, decode_pieces
from hico_core.data.sampling import random_view_indices
from hico_core.data.videos import IndexedVideos

pytestmark = pytest.mark.videos

DATA = DataConfig(num_frames=8, frame_stride=4, short_side=None)
STILL = AugmentConfig(colour_probability=0, grey_probability=0, blur_probability=0, flip_probability=0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> IndexedVideos:
    """steady (label 3) is longer than one piece of the index, uneven (label 1) has a variable rate, broken breaks."""
    folder = tmp_path_factory.mktemp("labelled")
    numbered_video(folder / "steady.mp4", seconds=12)
    numbered_video(folder / "uneven.mp4", seconds=8, keep="not(between(t,3,5))")
    numbered_video(folder / "broken.mp4", seconds=8)
    (folder / "list.txt").write_text("steady.mp4 3\nuneven.mp4 1\nbroken.mp4 0\n")
    add_untrimmed(
        labelled_videos(folder / "list.txt", data_root=folder),
        root=folder / "root",
        options=UntrimmedOptions(subset="train"),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "root")
    (folder / "broken.mp4").write_bytes(b"no video any more")
    return IndexedVideos(read_index_table(folder / "root"), root=folder / "root")


def number(videos: IndexedVideos, name: str) -> int:
    return [videos.video_id(n) for n in range(len(videos))].index(name)


def test_labels(videos: IndexedVideos) -> None:
    labels = {videos.video_id(n): videos.label(n) for n in range(len(videos))}
    assert labels == {"steady": 3, "uneven": 1, "broken": 0}


@pytest.mark.parametrize("frames", [[0, 1], [100, 180, 359], [149, 150, 151], [299, 300], [5, 5, 6]])
def test_frames_by_number(videos: IndexedVideos, frames: list[int]) -> None:
    """However the index cuts a video into pieces, they are the file's frames."""
    pieces = videos.pieces(number(videos, "steady"))
    assert len(pieces) == 3
    read = decode_pieces(pieces, frames, decoder="auto")
    assert torch.equal(read, decode_frames(str(pieces[0].path), frames))


def test_a_variable_rate_shows_what_a_player_would(videos: IndexedVideos) -> None:
    """Frames 90 to 150 are missing: the one before them stays."""
    pieces = videos.pieces(number(videos, "uneven"))
    clock = clock_of(pieces)
    total, fps = clock.num_frames, clock.fps
    moments = [1.0, 4.0, 6.0]
    frames = clock.numbered([round(moment * fps) for moment in moments])
    read = decode_pieces(pieces, frames, decoder="auto")
    shown = [painted_number(picture.numpy()) for picture in read]
    assert total == 179
    for moment, frame in zip(moments, shown, strict=True):
        expected = 89 if 3 <= moment <= 5 else moment * 30
        assert abs(frame - expected) <= 30 / fps


def test_random_clips(videos: IndexedVideos) -> None:
    steady = number(videos, "steady")
    dataset = RandomViews(videos, data=DATA, augment=STILL)
    starts = set()
    for seed in range(8):
        sample = dataset[ClipRequest(steady, seed, None)]
        assert torch.equal(sample.crops[0], dataset[ClipRequest(steady, seed, None)].crops[0])
        rng = random.Random(seed)
        frames = random_view_indices(total_frames=360, fps=30, num_frames=8, stride=4, target_fps=30, rng=rng)
        assert sample.windows == [(frames[0] / 30, frames[-1] / 30)]
        crop = sample.draws[0].crop
        whole = decode_frames(videos.source(steady), frames)
        cut = whole[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        assert torch.equal(sample.crops[0], cut)
        starts.add(frames[0])
    assert len(starts) > 5


def test_another_video_stands_in_for_a_broken_one(videos: IndexedVideos) -> None:
    sample = RandomViews(videos, data=DATA, augment=STILL)[ClipRequest(number(videos, "broken"), 0, None)]
    assert sample.video_id in {"steady", "uneven"} and len(sample.crops) == 1
    assert {bad.video_id for bad in sample.unusable} == {"broken"}
