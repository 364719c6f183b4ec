"""The windows used for features of well-known datasets, as detection toolkits expect them."""

from typing import Any, Literal, NamedTuple

from hico_core.checkpoints.frozen import FrozenEncoder

Preset = Literal["anet", "hacs", "thumos", "clip"]


class WindowPreset(NamedTuple):
    """Settings of `hico extract-features`."""

    fps: float | None  # None: the video's own
    window: int  # frames
    stride: int
    prefix: str  # of the file names


PRESETS: dict[Preset, WindowPreset] = {
    "anet": WindowPreset(15.0, 16, 16, "v_"),  # ActivityNet, like ActionFormer's and OpenTAD's TSP features
    "hacs": WindowPreset(15.0, 16, 16, ""),
    "thumos": WindowPreset(None, 16, 4, ""),  # like their I3D features
    # As in pretraining: 16 frames spread over 64/30 s, one window after the other.
    "clip": WindowPreset(7.5, 16, 16, ""),
}


def windows_of(
    preset: Preset | None,
    encoder: FrozenEncoder,
    *,
    window: int | None,
    stride: int | None,
    fps: float | Literal["native"] | None,
    prefix: str | None,
) -> WindowPreset:
    """A preset, with the given values replacing its own.

    Without a preset, an encoder of the table gets windows like those it was trained on, one after the other; files of
    hico and the authors get the preset hacs.
    """
    given: dict[str, Any] = {"window": window, "stride": stride, "fps": fps, "prefix": prefix}
    clip = encoder.entry.clip
    of_encoder = WindowPreset(clip.fps, clip.num_frames, clip.num_frames, "")
    usual = PRESETS["hacs"] if encoder.table_name is None else of_encoder
    chosen = (usual if preset is None else PRESETS[preset])._replace(
        **{name: value for name, value in given.items() if value is not None}
    )
    return chosen._replace(fps=None) if fps == "native" else chosen
