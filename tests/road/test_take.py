"""The parts of a road end in time, and what they have done stays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from made_videos import numbered_video
from made_workspaces import untrimmed_workspace

from hico_core.base.errors import HicoError
from hico_core.base.tally import VideoEvent
from hico_core.checkpoints.content import Progress
from hico_core.checkpoints.export import ENCODER, exports
from hico_core.config import Config, ModelConfig
from hico_core.data.plan import Position
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.road.choosing import Choice
from hico_core.road.events import RoadEvents
from hico_core.road.measuring import Clock, Measured
from hico_core.road.planning import Length, Shares, Speed, Work
from hico_core.road.take import extract_index, split_inputs, time_for_features

pytestmark = pytest.mark.videos

LATE = Clock(0.0, 10.0, lambda: 6.0)
EARLY = Clock(0.0, 10.0, lambda: 1.0)


class Silent:
    """Events that nobody is told of."""

    def on_note(self, text: str) -> None: ...

    def on_split(self, *event: object) -> None: ...

    def on_extracted(self, *event: object) -> None: ...

    @contextmanager
    def splitting(self, num_videos: int) -> Iterator[Callable[[VideoEvent], None]]:
        yield lambda event: None

    @contextmanager
    def extracting(self, num_videos: int, meter: object) -> Iterator[Callable[[VideoEvent], None]]:
        yield lambda event: None


EVENTS = cast("RoadEvents", Silent())


def test_splitting_ends_at_half_of_the_time_and_goes_on(tmp_path: Path) -> None:
    for number in range(5):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=2)
    inputs, root = [str(tmp_path / "videos")], tmp_path / "root"
    with pytest.raises(HicoError, match=r"splitting .* of 5 videos has taken half of --hours .* clips are kept"):
        split_inputs(inputs, root, clock=LATE, events=EVENTS)
    num_there = len(list((root / "records").glob("*.json")))
    assert 1 <= num_there < 5
    summary = split_inputs(inputs, root, clock=EARLY, events=EVENTS)
    assert (summary.num_unchanged, summary.num_done) == (num_there, 5 - num_there)


def test_extracting_ends_in_time_and_goes_on(tmp_path: Path) -> None:
    root = untrimmed_workspace(tmp_path, videos=5, seconds=2)
    run_dir = root / "runs/run"
    (run_dir / ENCODER).parent.mkdir(parents=True)
    config = Config(model=ModelConfig(encoder="s3dg-tiny"))
    progress = Progress(position=Position(1, 0, 1))
    made = exports(S3DGTiny(), run_dir / ENCODER, config, progress, feature_dim=128, loss=1.0)
    for file, content in made.items():
        file.write_bytes(content)
    assert extract_index(root, run_dir, device="cpu", clock=LATE, until=5.0, events=EVENTS) is None
    num_there = len(list((root / "features/run").glob("*.npy")))
    assert 1 <= num_there < 5
    summary = extract_index(root, run_dir, device="cpu", clock=LATE, until=7.0, events=EVENTS)
    assert summary is not None
    assert (summary.num_unchanged, summary.num_done) == (num_there, 5 - num_there)


SPEED = Speed(video=1.0, row=0.5, clip=0.25)
WORK = Work(num_videos=12, num_rows=100, num_clips=36, batch_size=12, recipe_epochs=120)  # features: 6 + 50 s


def choice_with(features: float | None) -> Choice:
    return Choice(
        config=Config(),
        settings=(),
        work=WORK,
        measured=Measured(SPEED, WORK.num_rows, "cpu"),
        shares=Shares(training=10.0, features=features, report=1.0),
        length=Length(epochs=10, batch_size=12, num_steps=10),
    )


@pytest.mark.parametrize(
    ("choice", "left", "was_cut", "expected"),
    [
        (choice_with(56.0), 80.0, False, 80.0),
        (choice_with(56.0), 40.0, False, 56.0),  # what was planned is done, though the training took a little longer
        (choice_with(None), 56.0, False, 56.0),  # not planned, but there is time
        (choice_with(None), 55.0, False, None),
        (choice_with(56.0), 80.0, True, None),  # features are those of a finished encoder
        (None, 80.0, False, 80.0),
        (None, 80.0, True, None),
    ],
)
def test_whether_features_are_extracted(
    choice: Choice | None, left: float, was_cut: bool, expected: float | None
) -> None:
    assert time_for_features(choice, left_seconds=left, was_cut=was_cut) == expected
