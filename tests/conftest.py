"""What all tests share."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from markers import pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401 - hooks of pytest

from hico_core.corpus.clips.ffmpeg import find_ffmpeg

# Real videos for trying things by hand lie beside some checkouts; tests that want them skip where they do not.
REAL_VIDEOS = Path(__file__).parents[2] / "shared" / "videos"


def pytest_configure(config: pytest.Config) -> None:
    """Tests say what holds on a CPU, to the last bit; those marked `gpu` are run by themselves, with `-m gpu`."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that two workers end at about the same time."""
    dear = Counter(
        item.path for item in items if any(map(item.get_closest_marker, ("processes", "cluster", "browser")))
    )
    items.sort(key=lambda item: -dear[item.path])  # the order within a file stays
    for item in items:
        if item.get_closest_marker("cluster"):  # a dozen processes, which take minutes to start on a busy machine
            item.add_marker(pytest.mark.timeout(900))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here, or not run with -m gpu"))


@pytest.fixture(autouse=True)
def _global_randomness_is_untouched() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def real_videos() -> Path:
    if not REAL_VIDEOS.is_dir():
        pytest.skip("no real videos here")
    return REAL_VIDEOS


@pytest.fixture(scope="session")
def buckets() -> Iterator[str]:
    """An S3 server; one for all tests, since drivers remember the address that they saw first."""
    from buckets import s3_server  # here, so that tests that want no bucket do without its packages

    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def ffmpeg_program() -> Path:
    return find_ffmpeg()
