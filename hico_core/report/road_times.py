"""The time that the calls of `hico run` took to make a run, stored in its folder."""

from pathlib import Path

from pydantic import BaseModel

from hico_core.base.storage import write_text
from hico_core.config.explain import read_own_json

ROAD_TIMES = "road.json"


class RoadTimes(BaseModel, frozen=True, extra="forbid"):
    """Seconds over all calls, each up to its report."""

    splitting: float
    measuring: float
    training: float
    features: float

    @property
    def whole(self) -> float:
        """Seconds of all steps."""
        return self.splitting + self.measuring + self.training + self.features


def read_road_times(run_dir: Path) -> RoadTimes | None:
    """Read the times of a run; None if `hico run` did not make it.

    Raises:
        HicoError: the file is damaged.

    """
    return read_own_json(run_dir / ROAD_TIMES, RoadTimes)


def add_road_times(run_dir: Path, of_call: RoadTimes) -> None:
    """Add the times of another call.

    Raises:
        HicoError: the file is damaged.

    """
    known = read_road_times(run_dir)
    before = known.model_dump() if known else dict.fromkeys(RoadTimes.model_fields, 0.0)
    times = {step: round(before[step] + seconds, 3) for step, seconds in of_call.model_dump().items()}
    write_text(run_dir / ROAD_TIMES, RoadTimes(**times).model_dump_json(indent=1) + "\n")
