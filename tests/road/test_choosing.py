"""Which training a road takes."""

from dataclasses import replace

import pytest

from hico_core.config import preset
from hico_core.config.resolve import Asked
from hico_core.road.choosing import Advice, Choice, advice_after, begun_config, describe_few, settings_of, with_length
from hico_core.road.measuring import Measured
from hico_core.road.planning import Length, Shares, Speed, Work

ASKED = Asked(recipe="hacs-hico-s", options={"model.encoder": None})


def test_the_warm_up_is_in_proportion() -> None:
    config = with_length(preset("hacs-hico-s"), Length(epochs=24, batch_size=12, num_steps=24))
    assert (config.train.epochs, config.train.batch_size, config.optim.warmup_epochs) == (24, 12, 1.0)


def test_settings_stand_over_what_is_asked() -> None:
    asked = Asked(recipe="hacs-hico-s", options={"model.encoder": "s3dg"}, overrides=["optim.base_lr=0.1"])
    config = settings_of(asked, ("model.encoder=s3dg-tiny",))
    assert (config.model.encoder, config.optim.base_lr) == ("s3dg-tiny", 0.1)


@pytest.mark.parametrize("fit", [False, True])
def test_a_run_that_was_begun_keeps_its_length_and_what_was_fitted(fit: bool) -> None:
    tiny = settings_of(ASKED, ("model.encoder=s3dg-tiny", "data.crop_size=64"))
    begun = with_length(tiny, Length(epochs=24, batch_size=12, num_steps=24))
    config = begun_config(begun, ASKED, fit=fit)
    assert (config.train, config.optim) == (begun.train, begun.optim)
    assert (config == begun) == fit, "without --fit, resuming refuses another encoder than the one asked for"


@pytest.mark.parametrize(
    ("overrides", "rate"), [((), 0.01), (("optim.base_lr=0.001",), 0.001), (("data.workers=0",), 0.01)]
)
def test_what_the_user_sets_since_then_is_not_lost(overrides: tuple[str, ...], rate: float) -> None:
    begun = settings_of(ASKED, ("model.encoder=s3dg-tiny", "optim.name=adamw", "optim.base_lr=0.01"))
    config = begun_config(begun, replace(ASKED, overrides=overrides), fit=True)
    assert (config.model.encoder, config.optim.base_lr) == ("s3dg-tiny", rate)
    assert config.data.workers == (0 if "data.workers=0" in overrides else begun.data.workers)


@pytest.mark.parametrize(
    ("num_steps", "advice", "expected"),
    [
        (1, None, "1 step is too few for s3dg to learn from (at least 300 are needed): treat the result as a trial"),
        (40, Advice("s3dg", 0, (), 2.5), "; for enough steps: `hico run v --name run-2 --hours 2.5`"),
        (
            40,
            Advice("s3dg-tiny", 400, ("model.encoder=s3dg-tiny",), 0.2),
            "; 400 steps of s3dg-tiny would fit; for enough steps: `hico run v --name run-2 --hours 0.2 --fit`",
        ),
        (
            40,
            Advice("s3dg-tiny", 90, ("model.encoder=s3dg-tiny", "data.crop_size=64"), 0.5),
            "; 90 steps of s3dg-tiny with smaller clips would fit; for enough steps: `hico run v --name run-2 --hours "
            "0.5 --fit`",
        ),
    ],
)
def test_too_few_steps_come_with_what_to_type(num_steps: int, advice: Advice | None, expected: str) -> None:
    assert expected in describe_few(num_steps, "s3dg", advice, command="hico run v --name run-2", more="more --hours")


@pytest.mark.parametrize(
    ("advice", "step_seconds", "hours"),
    [
        (Advice("s3dg", 0, (), 9.0), 2.0, 0.19),  # 10 s used, 6 + 300 * 2 / 0.95, features 6 + 0, report 11
        (Advice("s3dg", 0, (), 9.0), None, 9.0),
        (Advice("s3dg-tiny", 400, ("model.encoder=s3dg-tiny",), 0.2), 2.0, 0.2),  # the pace of another encoder
    ],
)
def test_the_hours_for_longer_training_follow_its_true_pace(
    advice: Advice, step_seconds: float | None, hours: float
) -> None:
    speed = Speed(video=100.0, row=0.0, clip=1.0)
    choice = Choice(
        config=preset("hacs-hico-s"),
        settings=(),
        work=Work(num_videos=12, num_rows=5, num_clips=1, batch_size=12, recipe_epochs=1),
        measured=Measured(speed, 5, "cpu"),
        shares=Shares(training=10.0, features=6.0, report=11.0),
        length=Length(epochs=1, batch_size=12, num_steps=1),
    )
    found = advice_after(advice, choice, step_seconds, used_seconds=10.0)
    assert found is not None
    assert found.hours == hours
