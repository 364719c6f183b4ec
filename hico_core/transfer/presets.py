"""The windows that features of well-known datasets have, as detection toolkits expect them."""

from typing import Literal, NamedTuple

Preset = Literal["anet", "hacs", "thumos", "clip"]


class WindowPreset(NamedTuple):
    """Settings of `hico extract-features`."""

    fps: float | None  # None: the video's own
    window: int  # frames
    stride: int
    prefix: str  # of the files


PRESETS: dict[Preset, WindowPreset] = {
    "anet": WindowPreset(15.0, 16, 16, "v_"),  # ActivityNet, as ActionFormer's and OpenTAD's TSP features
    "hacs": WindowPreset(15.0, 16, 16, ""),
    "thumos": WindowPreset(None, 16, 4, ""),  # as their I3D features
    # As in pretraining: 16 frames spread over 64 thirtieths of a second, one window after the other.
    "clip": WindowPreset(7.5, 16, 16, ""),
}
