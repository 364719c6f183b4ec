"""What all tests share."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from buckets import s3_server

from hico_core.corpus.ffmpeg import find_ffmpeg

# Real videos for trying things by hand lie beside some checkouts; tests that want them skip where they do not.
REAL_VIDEOS = Path(__file__).parents[2] / "shared" / "videos"


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
    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def ffmpeg_program() -> Path:
    return find_ffmpeg()
