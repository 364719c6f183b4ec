"""The times of all calls of `hico run` that made a run are added up."""

from pathlib import Path

import pytest

from hico_core.base.errors import HicoError
from hico_core.report.road_times import ROAD_TIMES, RoadTimes, add_road_times, read_road_times


def test_times_of_calls_add_up(tmp_path: Path) -> None:
    assert read_road_times(tmp_path) is None
    add_road_times(tmp_path, RoadTimes(splitting=60, measuring=5, training=100, features=0))
    add_road_times(tmp_path, RoadTimes(splitting=0.25, measuring=2, training=50.5, features=20))
    found = read_road_times(tmp_path)
    assert found == RoadTimes(splitting=60.25, measuring=7, training=150.5, features=20)
    assert found.whole == 237.75


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / ROAD_TIMES).write_text('{"splitting": "long"}')
    with pytest.raises(HicoError, match=r"road\.json: is damaged \(.*splitting.*; remove it"):
        read_road_times(tmp_path)
