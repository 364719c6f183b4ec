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
from hico_core.road.events import RoadEvents
from hico_core.road.measuring import Clock
from hico_core.road.planning import Shares
from hico_core.road.take import extract_index, has_time_for_features, split_inputs

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


@pytest.mark.parametrize(
    ("shares", "was_cut", "expected"),
    [
        (None, False, True),
        (Shares(training=10.0, features=5.0, report=1.0), False, True),
        (Shares(training=10.0, features=None, report=1.0), False, False),
        (Shares(training=10.0, features=5.0, report=1.0), True, False),
        (None, True, False),
    ],
)
def test_features_are_those_of_a_finished_encoder(shares: Shares | None, was_cut: bool, expected: bool) -> None:
    assert has_time_for_features(shares, was_cut=was_cut) == expected
