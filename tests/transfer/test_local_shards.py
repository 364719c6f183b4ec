"""Each of the processes that extract features side by side gets a GPU that is there, and its share of the cores."""

import pytest

from hico_core.transfer.local_shards import environment_of


@pytest.mark.parametrize(
    ("named", "num_gpus", "given"),
    [
        (None, 0, [None, None, None]),
        (None, 1, ["0", "0", "0"]),  # shared: a process that is given one that is not there would compute on a CPU
        (None, 2, ["0", "1", "0"]),
        (None, 8, ["0", "1", "2"]),
        ("3,5", 2, ["3", "5", "3"]),
        ("GPU-a,GPU-b,none", 2, ["GPU-a", "GPU-b", "GPU-a"]),
        ("", 0, ["", "", ""]),  # none may be used
    ],
)
def test_gpus(named: str | None, num_gpus: int, given: list[str | None]) -> None:
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    found = [environment_of(place, 3, environment, num_gpus=num_gpus) for place in range(3)]
    assert [own.get("CUDA_VISIBLE_DEVICES") for own in found] == given


def test_threads() -> None:
    assert int(environment_of(0, 1000, {}, num_gpus=0)["OMP_NUM_THREADS"]) == 1
    assert environment_of(0, 2, {"OMP_NUM_THREADS": "7"}, num_gpus=0)["OMP_NUM_THREADS"] == "7"
