"""What each step is made of follows from its plan alone, wherever training begins, for however many processes."""

import pytest

from hico_core.data.plan import PlannedStep, Position, TrainingOrder, plan_steps, position_at

START = Position()


def order_of(num_videos: int, *, batch_size: int, epochs: int = 5) -> TrainingOrder:
    return TrainingOrder(num_videos=num_videos, batch_size=batch_size, epochs=epochs, epochs_per_round=2, seed=1)


def plans(
    start: Position = START, *, num_videos: int = 4, batch_size: int = 3, rank: int = 0, processes: int = 1
) -> list[PlannedStep]:
    order = order_of(num_videos, batch_size=batch_size)
    steps = plan_steps(order, max_distance_at=lambda progress: progress, start=start, rank=rank, processes=processes)
    return list(steps)


def test_plans_cover_the_videos_and_can_begin_anywhere() -> None:
    steps = plans()
    # Rounds of 2, 2 and 1 epochs of 4 videos, in batches of 3: what is over at the end of a round is dropped.
    assert [step.position.epoch for step in steps] == [0, 0, 2, 2, 4]
    assert [step.position.step for step in steps] == list(range(5))
    assert [step.epoch for step in steps] == [0, 1, 2, 3, 4]
    assert [step.max_distance_seconds for step in steps] == [0, 0.2, 0.4, 0.6, 0.8]
    seeds = [request.seed for step in steps for request in step.requests]
    assert len(set(seeds)) == len(seeds)
    for step in steps:
        assert plans(start=step.position) == steps[step.position.step :]
        assert plans(start=step.position.after_step()) == steps[step.position.step + 1 :]


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_the_shares_of_all_processes_are_the_whole(processes: int) -> None:
    shares = [plans(num_videos=10, batch_size=6, rank=rank, processes=processes) for rank in range(processes)]
    for step, whole in enumerate(plans(num_videos=10, batch_size=6)):
        parts = [share[step] for share in shares]
        assert [request for part in parts for request in part.requests] == whole.requests
        assert all(part._replace(requests=whole.requests) == whole for part in parts)
        of_step = {request.video for request in whole.requests}
        assert all(request.not_instead == of_step for request in whole.requests)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0.0, Position(7, 0, 0)),
        (1.0, Position(7, 0, 2)),  # 10 videos a round of 2 epochs make 4 batches of 5
        (1.6, Position(7, 0, 3)),
        (2.0, Position(7, 2, 0)),
        (4.5, Position(7, 4, 1)),  # the last round has one epoch
        (5.0, Position(7, 4, 2)),  # past its last batch: nothing is left
        (6.0, Position(7, 5, 0)),  # a plan that was shortened
    ],
)
def test_the_place_that_so_many_epochs_come_nearest_to(epoch: float, expected: Position) -> None:
    assert position_at(epoch, step=7, order=order_of(10, batch_size=5)) == expected


def test_every_video_is_in_each_epoch_once_where_batches_fill() -> None:
    rounds = [order_of(6, batch_size=3).batches_of_round(first) for first in (0, 2, 4)]
    assert [len(batches) for batches in rounds] == [4, 4, 2]
    for batches in rounds:
        videos = [video for batch in batches for video in batch]
        assert sorted(videos) == sorted(list(range(6)) * (len(batches) // 2))
        assert all(len(set(batch)) == 3 for batch in batches)
