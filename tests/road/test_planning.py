"""What fits into the hours of a road."""

from dataclasses import replace
from typing import Any

import pytest

from hico_core.road.planning import (
    Candidate,
    CoreUse,
    Length,
    Pace,
    RoadPlan,
    Shares,
    Speed,
    Work,
    best_fitting,
    choose_length,
    corrected_epochs,
    describe_plan,
    divide_time,
    hours_for_enough,
    in_words,
    seconds_together,
    share_out,
)

SPEED = Speed(video=1.0, row=0.5, clip=0.25)
WORK = Work(num_videos=12, num_rows=100, num_clips=36, batch_size=12, recipe_epochs=120)


@pytest.mark.parametrize(
    ("computing", "reading", "cores", "expected"),
    [
        (4.0, 1.0, CoreUse(on_cpu=False, cores=16, readers=16, threads=8), 4.0),  # the GPU is the bottleneck
        (1.0, 32.0, CoreUse(on_cpu=False, cores=16, readers=8, threads=8), 4.0),  # reading is
        (1.0, 32.0, CoreUse(on_cpu=False, cores=4, readers=8, threads=4), 8.0),  # more readers than cores
        (4.0, 2.0, CoreUse(on_cpu=True, cores=2, readers=2, threads=2), 5.0),  # both want the same two cores
        (4.0, 2.0, CoreUse(on_cpu=True, cores=2, readers=2, threads=1), 4.0),  # the other core reads meanwhile
        (4.0, 2.0, CoreUse(on_cpu=True, cores=2, readers=0, threads=2), 6.0),  # one after the other
    ],
)
def test_reading_and_computing_share_the_cores(
    computing: float, reading: float, cores: CoreUse, expected: float
) -> None:
    assert seconds_together(computing, reading, cores) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        # report: 10 + 36 * 0.25 = 19 s; features: 6 + 100 * 0.5 = 56 s
        (1019.0, Shares(training=944.0, features=56.0, report=19.0)),
        (132.0, Shares(training=57.0, features=56.0, report=19.0)),
        (120.0, Shares(training=101.0, features=None, report=19.0)),  # features would take more than half
        (5.0, Shares(training=0.0, features=None, report=19.0)),
        (-50.0, Shares(training=0.0, features=None, report=19.0)),  # splitting took it all
    ],
)
def test_features_and_report_are_kept_back(left: float, expected: Shares) -> None:
    assert share_out(SPEED, WORK, left_seconds=left) == expected


@pytest.mark.parametrize(
    ("changes", "training_seconds", "expected"),
    [
        ({}, 6 + 1200 / 0.95, Length(epochs=100, batch_size=12, num_steps=100)),  # a step an epoch
        ({}, 6 + 1199 / 0.95, Length(epochs=99, batch_size=12, num_steps=99)),
        ({"num_videos": 40, "batch_size": 32}, 6 + 3200 / 0.95, Length(epochs=80, batch_size=32, num_steps=100)),
        ({"num_videos": 40, "batch_size": 32}, 6 + 96 / 0.95, Length(epochs=3, batch_size=32, num_steps=3)),
        (
            {"num_videos": 1200},
            6 + 600 / 0.95,
            Length(epochs=1, batch_size=12, num_steps=50, is_cut=True),
        ),  # no whole epoch
        ({}, 1e6, Length(epochs=5000, batch_size=12, num_steps=5000)),  # on few videos, more than the recipe's epochs
        ({"num_videos": 120000}, 1e9, Length(epochs=120, batch_size=12, num_steps=1200000)),  # on many, no more
        ({"epochs_asked": True}, 1e6, Length(epochs=120, batch_size=12, num_steps=120)),
        ({}, 6 + 7 / 0.95, Length(epochs=1, batch_size=6, num_steps=1, is_cut=True)),  # 12 do not fit
        ({}, 0.0, Length(epochs=1, batch_size=2, num_steps=1, is_cut=True)),  # a step is always done
        ({"batch_asked": True}, 0.0, Length(epochs=1, batch_size=12, num_steps=1)),
    ],
)
def test_as_many_epochs_as_fit(changes: dict[str, Any], training_seconds: float, expected: Length) -> None:
    work = replace(WORK, **changes)
    assert choose_length(SPEED, work, training_seconds=training_seconds + 1e-6) == expected


@pytest.mark.parametrize(
    ("changes", "epochs_left", "training_seconds", "num_steps"),
    [
        # report 19 s, features 56 s, a step 12 s
        ({}, None, 525.0, 41),
        ({"recipe_epochs": 20, "epochs_asked": True}, 19.5, 525.0, 20),
        ({"recipe_epochs": 90, "epochs_asked": True}, 90.0, 581.0, 45),  # only part of what is left fits
        ({"num_videos": 1200}, None, 581.0, 45),  # not even an epoch
    ],
)
def test_a_training_that_will_be_cut_gets_the_time_of_the_features(
    changes: dict[str, Any], epochs_left: float | None, training_seconds: float, num_steps: int
) -> None:
    shares, length = divide_time(SPEED, replace(WORK, **changes), left_seconds=600.0, epochs_left=epochs_left)
    assert (shares.training, length.num_steps) == (training_seconds, num_steps)
    assert shares.training + (shares.features or 0.0) + shares.report == 600.0


@pytest.mark.parametrize("used", [0.0, 40.0, 4000.0])
@pytest.mark.parametrize("video", [0.01, 1.0, 7.0])
def test_in_the_hours_for_enough_steps_there_are_enough(used: float, video: float) -> None:
    speed = SPEED._replace(video=video)
    shares = share_out(speed, WORK, left_seconds=60.0)
    hours = hours_for_enough(speed, WORK, shares, used_seconds=used)
    there = share_out(speed, WORK, left_seconds=3600 * hours - used)
    assert there.features is not None
    assert choose_length(speed, WORK, training_seconds=there.training).num_steps >= 300
    assert len(f"{hours:g}".replace(".", "").strip("0")) <= 2


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([(400, 0.1), (900, 0.05)], 0),
        ([(40, 2.0), (400, 0.1), (900, 0.05)], 1),
        ([(1, 51.0), (1, 4.0), (1, 2.0)], 2),  # none has enough
        ([(40, 0.2), (30, 0.3)], 0),
        ([(1, 51.0)], 0),
    ],
)
def test_the_first_with_enough_steps_else_the_nearest_to_it(candidates: list[tuple[int, float]], expected: int) -> None:
    assert best_fitting([Candidate(*candidate) for candidate in candidates]) == expected


@pytest.mark.parametrize(
    ("pace", "planned", "most", "expected"),
    [
        (Pace(2.0, 10.0, 100.0), 12, 100, None),  # just fits
        (Pace(2.0, 10.0, 100.0), 11, 100, None),  # 90 % of the time
        (Pace(2.0, 10.0, 100.0), 20, 100, 11),  # too slow
        (Pace(2.0, 10.0, 100.0), 5, 100, 11),  # much faster than measured
        (Pace(2.0, 10.0, 100.0), 5, 8, 8),  # no more than there are to be
        (Pace(2.3, 10.0, 0.0), 20, 100, 3),  # no time is left: the epoch that is begun
        (Pace(0.2, 900.0, 100.0), 1, 100, None),  # not even one epoch: the clock ends it
    ],
)
def test_epochs_are_corrected_where_they_do_not_fit(pace: Pace, planned: int, most: int, expected: int | None) -> None:
    assert corrected_epochs(pace, planned=planned, most=most) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (41, "41 s"), (59.6, "1.0 min"), (540, "9.0 min"), (9000, "2.5 h")]
)
def test_times_in_words(seconds: float, expected: str) -> None:
    assert in_words(seconds) == expected


PLAN = RoadPlan(
    hours=0.2,
    encoder="s3dg-tiny",
    device="cpu",
    shares=Shares(600.0, None, 20.0),
    split_seconds=40.0,
    measuring_seconds=30.0,
    num_rows=100,
    step_seconds=2.84,
    length=Length(epochs=190, batch_size=12, num_steps=190),
)


def test_the_plan_has_a_line_a_step() -> None:
    assert describe_plan(PLAN).splitlines() == [
        "plan for --hours 0.2 (12.0 min):",
        "  split and index      40 s",
        "  measuring            30 s",
        "  training          9.1 min  s3dg-tiny on cpu: 190 epochs, 190 steps of 12 videos, 2.8 s each",
        "  features             none  not enough time",
        "  report               20 s",
    ]
    assert "  features             30 s  100 rows" in describe_plan(replace(PLAN, shares=Shares(600.0, 30.0, 20.0)))
    assert "less than an epoch, 5 steps" in describe_plan(replace(PLAN, length=Length(1, 12, 5, is_cut=True)))


@pytest.mark.parametrize(
    ("length", "left", "expected"),
    [
        (Length(90, 12, 90), 90.0, ": 90 epochs left in the existing run, 90 steps"),
        (Length(1, 12, 1), 0.5, ": 1 epoch left in the existing run, 1 step"),
        (Length(35, 12, 35), 90.0, ": 35 epochs of the 90 left in the existing run"),
        (Length(1, 12, 5, is_cut=True), 90.0, ": less than an epoch of the 90 left in the existing run"),
    ],
)
def test_the_plan_of_a_run_begun_says_what_is_left(length: Length, left: float, expected: str) -> None:
    assert expected in describe_plan(replace(PLAN, length=length, epochs_left=left))
