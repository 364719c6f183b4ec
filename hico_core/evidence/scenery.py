"""The content of synthetic videos as random draws: topics, their scenes, actions, looks. Nothing is rendered here.

A scenery has topics, and each topic has scenes of its own (a texture and a shape). An untrimmed video keeps one topic
and one look, and changes its scene every few seconds. The action of a segment is drawn independently of the topic: it
says nothing about which video this is, so a loss that pulls distant clips of a video together discards it.

Lengths are in half widths of the picture, whose centre is (0, 0); times are in seconds.
"""

import colorsys
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from hico_core.base.choices import Design

Action = Literal["up", "down", "sideways", "turning", "growing", "shrinking", "shaking", "circling"]
Texture = Literal[
    "stripes", "bars", "diagonals", "checks", "rings", "dots", "waves", "grid", "hexagons", "patches"
]  # fmt: skip
Shape = Literal["disc", "square", "diamond", "ring", "plus", "triangle", "star", "beam", "crescent", "clover"]
Filler = Literal["talker", "title", "advert", "black", "blur", "test-card"]

ACTIONS: tuple[Action, ...] = get_args(Action)
TEXTURES: tuple[Texture, ...] = get_args(Texture)
SHAPES: tuple[Shape, ...] = get_args(Shape)
FILLERS: tuple[Filler, ...] = get_args(Filler)

NUM_TOPICS = 10
SCENES_PER_TOPIC = 4

FPS = 8
VIDEO_FRAMES = 160
_SHORTEST, _PAIR = 16, 40  # frames of a segment, and of two consecutive segments

# In the design "fillers", the fraction of segments that are fillers.
_FILLER_PART = 0.5

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


class Scene(NamedTuple):
    """The content of a segment, apart from its motion."""

    texture: Texture
    shape: Shape

    @property
    def name(self) -> str:
        """A name such as rings-star."""
        return f"{self.texture}-{self.shape}"


class Scenery(NamedTuple):
    """The scenes of each topic. A pair of texture and shape belongs to one topic at most."""

    scenes: tuple[tuple[Scene, ...], ...]  # by topic


class Motion(NamedTuple):
    """How the whole picture, background and object, moves."""

    action: Action
    speed: float  # about 1
    direction: int  # 1 or -1; of motions that are the same action in either direction
    phase: float  # where in its cycle a periodic motion begins, or the direction of a shake: 0 to 2 pi


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What is specific to a topical segment."""

    scene: Scene
    motion: Motion
    ground: Colour
    texture: Colour
    shape: Colour
    place: tuple[float, float]  # initial position of the object
    size: float  # its radius
    fineness: float  # of the texture, about 1
    tilt: float  # radians


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSegment:
    """Some seconds of a video."""

    first_frame: int
    num_frames: int
    staging: Staging | None  # None: a filler
    filler: Filler | None
    seed: int  # of random details: camera jitter, content of a filler

    @property
    def start_seconds(self) -> float:
        """Seconds from the video's first frame."""
        return self.first_frame / FPS

    @property
    def end_seconds(self) -> float:
        """Where the next segment begins."""
        return (self.first_frame + self.num_frames) / FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLook:
    """What all frames of a video share, whatever they show; strength 0 changes nothing."""

    gains: Colour  # factors of the colour channels
    gamma: float
    vignette: float  # fraction of the light missing in the corners
    grain: float  # standard deviation of the noise
    logo: tuple[tuple[bool, ...], ...]  # which of its tiles are drawn
    logo_colour: Colour
    logo_corner: tuple[int, int]  # 0 or 1: left or right, above or below
    logo_opacity: float


class Script(NamedTuple):
    """A whole video."""

    topic: int
    look: VideoLook
    segments: list[VideoSegment]


def draw_scenery(seed: int) -> Scenery:
    """Deal 40 of the 100 pairs of texture and shape to the topics; scenes of a topic look no more alike than any."""
    rng = np.random.default_rng([seed, 0])
    pairs = [Scene(texture, shape) for texture in TEXTURES for shape in SHAPES]
    dealt = [pairs[place] for place in rng.permutation(len(pairs))[: NUM_TOPICS * SCENES_PER_TOPIC]]
    return Scenery(tuple(tuple(dealt[topic::NUM_TOPICS]) for topic in range(NUM_TOPICS)))


def draw_script(scenery: Scenery, *, seed: int, number: int, design: Design, look: float) -> Script:
    """Draw one video of a scenery.

    Args:
        scenery: from `draw_scenery`.
        seed: of the corpus.
        number: of the video; each has its own draws, so that a larger corpus begins with the videos of a smaller one.
        design: "scenes", or "fillers", where half of the segments are unrelated to the topic.
        look: strength of what a video's frames share, 0 to 1.

    """
    rng = np.random.default_rng([seed, 1, number])
    topic = int(rng.integers(NUM_TOPICS))
    segments = []
    first = 0
    for length in _segment_lengths(rng):
        is_filler = design == "fillers" and rng.random() < _FILLER_PART
        staging = None if is_filler else _draw_staging(scenery.scenes[topic], rng)
        filler = FILLERS[rng.integers(len(FILLERS))] if is_filler else None
        seed_of_segment = int(rng.integers(2**32))
        segments.append(
            VideoSegment(first_frame=first, num_frames=length, staging=staging, filler=filler, seed=seed_of_segment)
        )
        first += length
    # Drawn separately, so that videos that differ only in their looks can be rendered.
    return Script(topic, _draw_look(np.random.default_rng([seed, 2, number]), strength=look), segments)


def _segment_lengths(rng: np.random.Generator) -> list[int]:
    """Frames of each segment, 2 to 3 s; each pair lasts 5 s, so that the segments fill the video."""
    first = rng.integers(_SHORTEST, _PAIR - _SHORTEST + 1, size=VIDEO_FRAMES // _PAIR)
    return [int(length) for one in first for length in (one, _PAIR - one)]


def _draw_staging(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Staging:
    motion = Motion(
        ACTIONS[rng.integers(len(ACTIONS))],
        speed=float(rng.uniform(0.75, 1.3)),
        direction=int(rng.choice([-1, 1])),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
    return Staging(
        scene=scenes[rng.integers(len(scenes))],
        motion=motion,
        ground=_colour(rng, (0.05, 0.25)),
        texture=_colour(rng, (0.35, 0.6)),
        shape=_colour(rng, (0.8, 1.0)),
        place=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))),
        size=float(rng.uniform(0.4, 0.55)),
        fineness=float(rng.uniform(0.85, 1.2)),
        tilt=float(rng.uniform(-0.3, 0.3)),
    )


def _colour(rng: np.random.Generator, brightness: tuple[float, float]) -> Colour:
    """A random hue; the brightness separates background, texture and object."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(*brightness))


def _draw_look(rng: np.random.Generator, *, strength: float) -> VideoLook:
    red, green, blue = 1 + strength * rng.uniform(-0.5, 0.3, size=3)
    tiles = rng.random((3, 3)) < 0.6
    right, below = rng.integers(2, size=2)
    return VideoLook(
        gains=(float(red), float(green), float(blue)),
        gamma=float(np.exp(strength * rng.uniform(-0.5, 0.5))),
        vignette=float(strength * rng.uniform(0, 0.8)),
        grain=float(strength * rng.uniform(0, 0.08)),
        logo=tuple(tuple(bool(tile) for tile in row) for row in tiles),
        logo_colour=_colour(rng, (0.6, 1.0)),
        logo_corner=(int(right), int(below)),
        logo_opacity=strength,
    )
