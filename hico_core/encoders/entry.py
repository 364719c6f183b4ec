"""What is known of an encoder before it has weights."""

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
    picture: Picture  # what it is shown of each frame
    clip: ClipShape  # how many frames it usually gets, and how many a second
    shortest_window: int  # frames
    longest_window: int | None = None  # frames; None: any number
    feature_dim: int  # F
    gives: Literal["maps", "rows"]
    trains: bool  # here, by hico pretrain and hico finetune
    licence: str  # of the code
    pretrained: Callable[[], nn.Module] | None = None  # with the weights of its library, which may download them
    is_whole: bool = False  # `pretrained`, or `build`, needs neither a file nor a download, so that the name says all
    beyond: tuple[str, ...] = ()  # parts of the network that weights are published with and that are left out here


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is written most like this one."""
    (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return near
