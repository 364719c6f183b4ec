"""Numbers recorded from the authors' released code, and the rules by which their inputs are made.

tests/golden/README.md says where the files come from. Weights and inputs are drawn from NumPy's legacy
generator, whose stream never changes, keyed by a seed and a text.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def load_json(name: str) -> Any:  # noqa: ANN401 - the shape differs from file to file
    return json.loads((GOLDEN / name).read_text())


def load_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as archive:
        return {key: archive[key] for key in archive.files}


def rng(seed: int, key: str) -> np.random.RandomState:
    return np.random.RandomState((seed + zlib.crc32(key.encode())) % 2**32)


def weight(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of the tensor with the authors' name `name`."""
    draw = rng(seed, name)
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_mean":
        value = 0.1 * draw.standard_normal(shape)
    elif last == "running_var":
        value = draw.uniform(0.5, 1.5, size=shape)
    elif len(shape) >= 2:
        value = draw.standard_normal(shape) * math.sqrt(2.2 / math.prod(shape[1:]))
    elif last == "weight":
        value = draw.uniform(0.5, 1.5, size=shape)
    else:
        value = 0.1 * draw.standard_normal(shape)
    return value.astype(np.float32)


def authors_state(model: str, seed: int) -> dict[str, Tensor]:
    """A whole checkpoint's weights in the authors' names, aliases left out."""
    entries = load_json("state_dict_names.json")[model]
    return {
        name: torch.from_numpy(weight(seed, name, tuple(shape))) for name, shape, kind in entries if kind != "alias"
    }


def clip_input(seed: int, shape: tuple[int, ...], key: str = "input") -> np.ndarray:
    """A made clip batch (N, C, T, H, W): coarse blocks plus fine noise."""
    draw = rng(seed, key)
    N, C, T, H, W = shape
    coarse = draw.standard_normal((N, C, -(-T // 4), -(-H // 16), -(-W // 16)))
    blocks = coarse.repeat(4, axis=2).repeat(16, axis=3).repeat(16, axis=4)[:, :, :T, :H, :W]
    return (blocks + 0.25 * draw.standard_normal(shape)).astype(np.float32)


def assert_close(actual: Tensor | np.ndarray | float, expected: np.ndarray, tolerance: float) -> None:
    """max|a - b| / max(1, max|b|) <= tolerance."""
    a = actual.detach().cpu().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    b = np.asarray(expected)
    assert a.shape == b.shape, f"{a.shape = }, {b.shape = }"
    error = np.abs(a - b).max() / max(1.0, np.abs(b).max())
    assert error <= tolerance, f"{error:.3g} > {tolerance:.3g}"
