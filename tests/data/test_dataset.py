"""Clips are read across the borders of files, from the right frames, and broken videos are replaced and counted."""

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from dying import DyingDataset
from goldens import load_json
from made_videos import numbered_video, painted_number

from hico_core.base.errors import BadVideo, HicoError
from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.index import build_index, read_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.batches import Batch, BatchReader
from hico_core.data.dataset import ClipDataset, ClipRequest, Sample, with_substitutes
from hico_core.data.decode import decode_frames
from hico_core.data.loader import read_batches
from hico_core.data.plan import PlannedStep, Position, TrainingOrder, plan_steps
from hico_core.data.reading import clock_of, pieces_with, read_clip
from hico_core.data.shared_memory import SLOTS
from hico_core.data.videos import IndexedVideos, Piece

pytestmark = pytest.mark.videos

GOLDEN = load_json("sampling.json")


def golden_pieces(video: str) -> list[Piece]:
    pieces = []
    for line in GOLDEN["subclip_files"]["list_file_lines"]:
        video_id, start, end = line.rsplit(",", 2)
        if video_id == video:
            name = Path(f"v_{video_id}_{start}_{end}.mp4")
            pieces.append(Piece(path=name, start_seconds=int(start) / 1000, num_frames=0, fps=30.0, variable_fps=False))
    return pieces


def pieces_of_window(pieces: list[Piece], window: tuple[float, float]) -> list[Piece]:
    """The slow twin of `IndexedVideos.pieces`: those that hold frames shown in [start, end); at a hole, the one before.

    pieces |0    |5    |10   ,  window 4 .. 6  ->  |0    |5
    """
    start, end = window
    first = max((i for i, piece in enumerate(pieces) if piece.start_seconds <= start), default=0)
    return [pieces[first], *(piece for piece in pieces[first + 1 :] if piece.start_seconds < end)]


@pytest.mark.parametrize("case", GOLDEN["subclip_files"]["cases"], ids=lambda c: f"{c['video']}-{c['range']}")
def test_pieces_of_window(case: dict[str, Any]) -> None:
    chosen = pieces_of_window(golden_pieces(case["video"]), tuple(case["range"]))
    assert [piece.path.name for piece in chosen] == case["files"]


@pytest.mark.parametrize("case", GOLDEN["decode_selection"], ids=lambda c: f"{c['video']}-{c['range']}-{c['fps']}")
def test_frames_across_files(case: dict[str, Any]) -> None:
    """The authors count from the first file that the window touches."""
    window = tuple(case["range"])
    chosen = pieces_of_window(golden_pieces(case["video"]), window)
    counts = [case["frames_per_file"][piece.path.name] for piece in chosen]
    pieces = [
        replace(piece, fps=case["fps"], num_frames=count, first_number=sum(counts[:place]))
        for place, (piece, count) in enumerate(zip(chosen, counts, strict=True))
    ]
    origin = chosen[0].start_seconds
    frames = clock_of(pieces).of_window((window[0] - origin, window[1] - origin), num_frames=16)
    selection = [{"file": piece.path.name, "frames": inside} for piece, inside in pieces_with(pieces, frames)]
    assert selection == case["selection"]


def test_pieces_of_a_window_are_found_among_all(videos: IndexedVideos) -> None:
    """The quick way has those of the slow one, at every border and around it, and at most one more on each side."""
    for video in range(len(videos)):
        whole = videos.pieces(video)
        borders = [piece.start_seconds for piece in whole] + [videos.duration_seconds(video)]
        moments = [border + offset for border in borders for offset in (-0.5, -1e-9, 0.0, 1e-9, 0.5)]
        for start in moments:
            for end in (start, start + 0.1, start + 2.1, start + 6.0):
                found, needed = videos.pieces(video, (start, end)), pieces_of_window(whole, (start, end))
                place = whole.index(needed[0])
                assert found in [
                    whole[max(place - before, 0) : place + len(needed) + after] for before in (0, 1) for after in (0, 1)
                ], (start, end)


def test_at_a_hole_the_file_before_it_is_read() -> None:
    pieces = [
        Piece(path=Path("a"), start_seconds=0.0, num_frames=120, fps=30.0, variable_fps=True),
        Piece(path=Path("b"), start_seconds=10.7, num_frames=120, fps=30.0, variable_fps=True),
    ]
    assert [p.path.name for p in pieces_of_window(pieces, (5.0, 7.0))] == ["a"]
    assert [p.path.name for p in pieces_of_window(pieces, (9.0, 11.0))] == ["a", "b"]


# id: how it is made. `hole` and `dropped` have variable frame rates.
VIDEOS: dict[str, dict[str, Any]] = {
    "ntsc": {"seconds": 13, "fps": "30000/1001"},
    "odd rate": {"seconds": 12, "fps": "19.62"},
    "hole": {"seconds": 18, "keep": "not(between(t,4,10.7))"},
    "dropped": {"seconds": 12, "keep": "gt(random(3),0.4)"},
    "-short": {"seconds": 1.5},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name, how in VIDEOS.items():
        numbered_video(folder / f"{name}.mp4", **how)
    split_videos(
        find_sources([str(folder)]),
        root=folder / "root",
        options=SplitOptions(short_side=96, preset="ultrafast", crf=10),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "root")
    return folder / "root"


@pytest.fixture
def videos(root: Path) -> IndexedVideos:
    return IndexedVideos(read_index_table(root), root=root, subset="train", shortest_seconds=64 / 30)


def test_short_videos_are_left_out_and_counted(videos: IndexedVideos, root: Path) -> None:
    assert [videos.video_id(i) for i in range(len(videos))] == ["dropped", "hole", "ntsc", "odd rate"]
    assert videos.num_short == 1
    assert videos.duration_seconds(2) == pytest.approx(13, abs=0.05)
    assert len(IndexedVideos(read_index_table(root), root=root, subset="val", shortest_seconds=0)) == 0


@pytest.mark.parametrize("video", range(4))
def test_a_clip_shows_the_moments_of_its_window(videos: IndexedVideos, video: int) -> None:
    """The painted numbers are frames of the source at its nominal rate, so they tell the time."""
    pieces = videos.pieces(video)
    name = videos.video_id(video)
    numerator, _, denominator = VIDEOS[name].get("fps", "30").partition("/")
    fps = float(numerator) / float(denominator or 1)
    first = painted_number(decode_frames(str(pieces[0].path), [0])[0].numpy())  # the source may have begun later
    rng = random.Random(video)
    crossings = 0
    for _ in range(25):
        start = rng.uniform(0, videos.duration_seconds(video) - 64 / 30)
        window = (start, start + 64 / 30)
        crossings += len(pieces_of_window(pieces, window)) > 1
        clip = read_clip(pieces, window, num_frames=16, decoder="auto")
        shown = [(painted_number(picture.numpy()) - first) / fps for picture in clip]
        moments = torch.linspace(*window, 16).tolist()
        for seconds, moment in zip(shown, moments, strict=True):
            if name in ("ntsc", "odd rate"):
                assert abs(seconds - moment) <= 2 / fps  # truncation of start, end and position
            else:
                assert seconds <= moment + 1e-3, "never a frame of the future"
                if not (name == "hole" and 4 <= moment <= 10.8):
                    assert moment - seconds < 0.6, "nor one of long ago"
    assert crossings >= 3


def make_dataset(videos: IndexedVideos) -> ClipDataset:
    return ClipDataset(videos, data=DataConfig(crop_size=32), sampling=SamplingConfig(), augment=AugmentConfig())


def test_the_same_request_gives_the_same_sample(videos: IndexedVideos) -> None:
    dataset = make_dataset(videos)
    one, again = dataset[ClipRequest(2, 7, 0.5)], dataset[ClipRequest(2, 7, 0.5)]
    other = dataset[ClipRequest(2, 8, 0.5)]
    assert [crop.shape for crop in one.crops] == [(16, d.crop.height, d.crop.width, 3) for d in one.draws]
    assert len(one.crops) == 3 and all(crop.dtype == torch.uint8 for crop in one.crops)
    assert all(torch.equal(a, b) for a, b in zip(one.crops, again.crops, strict=True))
    assert (one.draws, one.video_id, one.unusable) == (again.draws, again.video_id, again.unusable)
    assert one.draws != other.draws
    assert one.video_id == "ntsc" and one.unusable == []


def test_a_broken_video_is_replaced_and_named(root: Path, videos: IndexedVideos, tmp_path: Path) -> None:
    index = read_index(root)
    broken = index["video_id"] == "hole"
    index.loc[broken, "path"] = "train/none.mp4"
    dataset = make_dataset(
        IndexedVideos(pa.Table.from_pandas(index), root=root, subset="train", shortest_seconds=64 / 30)
    )
    for seed in range(10):
        sample = dataset[ClipRequest(1, seed, 0.5)]
        assert sample.video_id != "hole"
        assert {bad.video_id for bad in sample.unusable} == {"hole"}
        assert "none.mp4: no such file" in sample.unusable[0].reason

    index["path"] = "train/none.mp4"
    dataset = make_dataset(
        IndexedVideos(pa.Table.from_pandas(index), root=root, subset="train", shortest_seconds=64 / 30)
    )
    sample = dataset[ClipRequest(1, 0, 0.5)]
    assert sample.crops == [] and len(sample.unusable) == 21
    batch = BatchReader(dataset)[[ClipRequest(1, 0, 0.5), ClipRequest(0, 0, 0.5)]]
    assert batch.pixels is None and len(batch.unusable) == 42
    with pytest.raises(HicoError, match="42 videos of one batch cannot be decoded"):
        batch.crops_on(torch.device("cpu"))


def plans(videos: IndexedVideos) -> list[PlannedStep]:
    order = TrainingOrder(num_videos=len(videos), batch_size=3, epochs=5, epochs_per_round=2, seed=1)
    return list(plan_steps(order, max_distance_at=lambda progress: progress, start=Position()))


def batches_with(videos: IndexedVideos, workers: int) -> list[Batch]:
    steps = plans(videos)[:4]
    return read_all(make_dataset(videos), steps, workers)


def read_all(dataset: ClipDataset, steps: list[PlannedStep], workers: int) -> list[Batch]:
    """With copies of the pixels, since workers write new ones over them."""
    batches = []
    for plan, (given, batch) in zip(
        steps, read_batches(dataset, steps, workers=workers, pin_memory=False), strict=True
    ):
        assert plan == given and batch.pixels is not None
        batches.append(replace(batch, pixels=batch.pixels.clone()))
    return batches


def assert_same(one: Batch, other: Batch) -> None:
    assert one.pixels is not None and other.pixels is not None
    assert torch.equal(one.pixels, other.pixels)
    assert replace(one, pixels=None) == replace(other, pixels=None)


def test_batches_do_not_depend_on_the_number_of_workers(videos: IndexedVideos) -> None:
    alone = batches_with(videos, 0)
    assert len(alone) == 4
    for workers in (1, 4):
        for one, other in zip(alone, batches_with(videos, workers), strict=True):
            assert_same(one, other)


def test_a_batch_is_the_crops_of_its_samples(videos: IndexedVideos) -> None:
    """Each as it is, also after larger ones, and after smaller ones, were where it is."""
    dataset = make_dataset(videos)
    reader = BatchReader(dataset)
    for seed in range(2 * SLOTS):
        requests = [ClipRequest(video, seed, 0.5) for video in range(1 + seed % 4)]
        samples = [dataset[request] for request in requests]
        batch = reader[requests]
        crops = [crop for sample in samples for crop in sample.crops]
        assert batch.draws == [draw for sample in samples for draw in sample.draws]
        assert batch.pixels is not None and batch.pixels.dtype == torch.uint8
        assert len(batch.pixels) == sum(crop.numel() for crop in crops)
        for one, other in zip(batch.crops_on(torch.device("cpu")), crops, strict=True):
            assert torch.equal(one, other)


def test_a_worker_uses_its_memory_in_turn(videos: IndexedVideos) -> None:
    """What is trained on stays as it is until the next batch is asked for; after a while no new memory is needed."""
    steps = plans(videos) * 8
    alone = batches_with(videos, 0)
    places: list[int] = []
    for number, (_, batch) in enumerate(read_batches(make_dataset(videos), steps, workers=1, pin_memory=False)):
        assert batch.pixels is not None and batch.pixels.is_shared()
        time.sleep(0.05)  # the worker is at the batches after this one
        if number % len(plans(videos)) < len(alone):
            assert torch.equal(batch.pixels, alone[number % len(plans(videos))].pixels)  # type: ignore[arg-type]
        places.append(batch.pixels.data_ptr())
    assert len(set(places[-3 * SLOTS :])) == SLOTS


def test_the_death_of_a_worker_is_survived_once(
    videos: IndexedVideos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = plans(videos)[:4]
    expected = batches_with(videos, 0)
    file = tmp_path / "deadly"
    file.write_text("once")
    dataset = DyingDataset(videos, deadly_seed=steps[2].requests[0].seed, file=file)
    for one, other in zip(read_all(dataset, steps, 2), expected, strict=True):
        assert_same(one, other)
    assert "a worker of the loader died: " in caplog.text and "starting the workers again" in caplog.text
    file.write_text("always")
    with pytest.raises(HicoError, match="a second worker of the loader died"):
        list(read_batches(dataset, steps, workers=2, pin_memory=False))


def test_index_of_another_subset(root: Path) -> None:
    index = read_index(root)
    index["subset"] = ["val" if video == "ntsc" else "train" for video in index["video_id"]]
    videos = IndexedVideos(pa.Table.from_pandas(index), root=root, subset="val", shortest_seconds=0)
    assert len(videos) == 1


def test_workers_start_after_this_process_has_decoded(videos: IndexedVideos) -> None:
    """A forked worker would wait for threads of the decoder that only its parent has."""
    steps = plans(videos)[:1]
    _, alone = next(read_batches(make_dataset(videos), steps, workers=0, pin_memory=False))
    _, by_worker = next(read_batches(make_dataset(videos), steps, workers=2, pin_memory=False))
    assert alone.video_ids == by_worker.video_ids


def sample_of(videos: IndexedVideos, video: int) -> Sample:
    return Sample(crops=[], draws=[], video=video, video_id=videos.video_id(video), windows=[], unusable=[])


@pytest.mark.parametrize(
    ("of_step", "broken", "substitutes"),
    [
        ({0, 1}, {1}, {2, 3}),  # others than those of the step
        ({0, 1, 3}, {1}, {2}),
        ({1}, {1, 2}, {0, 3}),
        ({0, 1}, {1, 2, 3}, {0}),  # unless no other can be decoded
        ({0, 1, 2, 3}, {1}, {0, 2, 3}),  # or there is none
    ],
)
def test_a_substitute_is_not_in_the_step_already(
    videos: IndexedVideos, of_step: set[int], broken: set[int], substitutes: set[int]
) -> None:
    def make(video: int, rng: random.Random) -> Sample:
        if video in broken:
            raise BadVideo(videos.video_id(video), "is broken")
        return sample_of(videos, video)

    requests = [ClipRequest(1, seed, None, frozenset(of_step)) for seed in range(30)]
    assert {with_substitutes(request, videos, make).video for request in requests} == substitutes


def test_two_broken_videos_of_a_step_have_two_substitutes(root: Path) -> None:
    index = read_index(root)
    index.loc[index["video_id"].isin(["hole", "ntsc"]), "path"] = "train/none.mp4"
    table = pa.Table.from_pandas(index)
    reader = BatchReader(make_dataset(IndexedVideos(table, root=root, subset="train", shortest_seconds=64 / 30)))
    for seed in range(5):
        batch = reader[[ClipRequest(video, seed, 0.5, frozenset({1, 2})) for video in (1, 2)]]
        assert sorted(batch.video_ids) == ["dropped", "odd rate"]


@pytest.mark.parametrize("error", [IndexError("list index out of range"), ZeroDivisionError(), RuntimeError("a\nb")])
def test_an_error_inside_the_reading_of_one_video_is_that_videos(videos: IndexedVideos, error: Exception) -> None:
    """Whatever a decoder or a calculation stumbles over, another video stands in, and the reason is one line."""

    def make(video: int, rng: random.Random) -> Sample:
        if video == 1:
            raise error
        return sample_of(videos, video)

    sample = with_substitutes(ClipRequest(1, 7, None), videos, make)
    assert sample.video_id != videos.video_id(1)
    (bad, *_) = sample.unusable
    assert bad.video_id == videos.video_id(1)
    assert f"cannot be read ({type(error).__name__}" in bad.reason and "\n" not in bad.reason
