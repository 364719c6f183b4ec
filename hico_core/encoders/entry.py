"""The description of an encoder without its weights."""

# N clips, T frames, S their side in pixels, F feature width; T', H', W' the maps' frames, height and width.

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hico_core.data.pictures import ClipShape, Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEntry:
    """One encoder, without its weights."""

    build: Callable[[], nn.Module]  # with random weights; (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F)
    picture: Picture  # how each frame becomes its input
    clip: ClipShape  # number and rate of the frames that it usually gets
    shortest_window: int  # frames
    longest_window: int | None = None  # frames; None: any number
    feature_dim: int  # F
    gives: Literal["maps", "rows"]
    trains: bool  # whether hico pretrain and hico finetune can train it
    licence: str  # of the code
    pretrained: Callable[[], nn.Module] | None = None  # with its library's weights, which may be downloaded
    is_whole: bool = False  # `pretrained`, or `build`, needs neither a file nor a download, so the name is enough
    beyond: tuple[str, ...] = ()  # parts of the network that published weights include and that are left out here


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name with the most similar spelling."""
    (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return near
