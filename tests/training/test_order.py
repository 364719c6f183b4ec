"""The order of the steps is the same from wherever it is begun, and shared by the processes."""

from hico_core.data.loader import Position
from hico_core.training.distributed import World
from hico_core.training.order import StepOrder

ORDER = StepOrder(num_videos=10, batch_size=4, epochs=4, epochs_per_round=2, seed=0)


def test_it_may_begin_anywhere() -> None:
    whole = list(ORDER.steps(Position(), World()))
    assert list(ORDER.steps(whole[3].position, World())) == whole[3:]


def test_processes_share_each_step() -> None:
    whole = list(ORDER.steps(Position(), World()))
    shares = [list(ORDER.steps(Position(), World(rank=rank, size=2))) for rank in (0, 1)]
    assert [[*a.requests, *b.requests] for a, b in zip(*shares, strict=True)] == [step.requests for step in whole]


def test_the_place_after_some_passes_is_that_of_the_step_there() -> None:
    for step in ORDER.steps(Position(), World()):
        assert ORDER.position_after(step.epoch, step=step.position.step) == step.position
