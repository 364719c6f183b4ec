"""Frames in memory, and the way that they take into an encoder."""

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor

from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.data.pictures import Picture, crops_of, normalised
from hico_core.model.pooling import PooledEncoder


def made_frames(num_frames: int) -> np.ndarray:
    """Smooth pictures that change, (T, 90, 120, 3) uint8: what is smooth shows how it was scaled."""
    time, rows, columns = np.ogrid[:num_frames, :90, :120]
    waves = [np.sin(time + rows / (5 + channel) + columns / (9 - channel)) for channel in range(3)]
    return (127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8)


def shown_to(picture: Picture, frames_THWC: np.ndarray) -> Tensor:
    """By the way that videos take, from frames as they are decoded: (1, 3, T, S, S)."""
    frames = [VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames_THWC]
    clip = np.stack([crops_of(frame, picture)[0] for frame in frames])
    return normalised(torch.from_numpy(clip)[None], picture)


def rows_of(encoder: FrozenEncoder, frames_THWC: np.ndarray) -> Tensor:
    """What an encoder makes of them: (1, F)."""
    with torch.inference_mode():
        rows: Tensor = PooledEncoder(encoder.network)(shown_to(encoder.entry.picture, frames_THWC))
    return rows
