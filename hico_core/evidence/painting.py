"""Renders the scripts of synthetic videos as frames.

Shape letters: T frames, S side of the square picture in pixels. Plane coordinates u (to the right) and v (down) give
the point of the scene that a pixel shows; the scene moves as a whole.
"""

from typing import NamedTuple

import numpy as np

from hico_core.evidence.scenery import FPS, Colour, Script, Shape, Staging, Texture, VideoLook, VideoSegment

# Distance between the objects on the scene, so that one is always visible.
_LATTICE = 2.0

# Softness of edges: of textures by their value, of objects by their radius. No detail is finer than a pixel; no
# flicker.
_TEXTURE_SOFTNESS, _SHAPE_SOFTNESS = 0.25, 0.06

_JITTER = 0.006  # camera shake, in half widths per frame

Array = np.ndarray


class Pose(NamedTuple):
    """The scene's translation, rotation (radians) and zoom around the middle, in each frame: each (T,)."""

    x: Array
    y: Array
    angle: Array
    log_scale: Array


def paint(script: Script, *, side: int) -> Array:
    """Render all frames of a video: (T, S, S, 3) uint8."""
    frames = np.concatenate([paint_segment(segment, side=side) for segment in script.segments])
    return _with_look(frames, script.look, seed=script.segments[0].seed)


def paint_segment(segment: VideoSegment, *, side: int) -> Array:
    """Render a segment without the video's look: (T, S, S, 3) float32 in [0, 1]."""
    rng = np.random.default_rng(segment.seed)
    if segment.staging is None:
        assert segment.filler is not None
        return _FILLERS[segment.filler](segment.num_frames, side, rng)
    return _paint_staging(segment.staging, segment.num_frames, side, rng)


def pose(staging: Staging, num_frames: int) -> Pose:
    """The movement of a scene, without the camera's jitter."""
    motion = staging.motion
    t = np.arange(num_frames, dtype=np.float32) / FPS
    still = np.zeros_like(t)
    way = motion.speed * t * motion.direction
    middle = t - t.mean()  # the scene has its natural size half-way through
    match motion.action:
        case "up":
            return Pose(still, -0.7 * motion.speed * t, still, still)
        case "down":
            return Pose(still, 0.7 * motion.speed * t, still, still)
        case "sideways":
            return Pose(0.7 * way, still, still, still)
        case "turning":
            return Pose(still, still, 1.2 * way, still)
        case "growing":
            return Pose(still, still, still, 0.5 * motion.speed * middle)
        case "shrinking":
            return Pose(still, still, still, -0.5 * motion.speed * middle)
        case "shaking":
            swing = 0.2 * np.sin(2 * np.pi * 2.0 * motion.speed * t + motion.phase)
            return Pose(swing * np.cos(motion.phase), swing * np.sin(motion.phase), still, still)
        case "circling":
            turn = 2 * np.pi * 0.7 * way + motion.phase
            return Pose(0.3 * np.cos(turn), 0.3 * np.sin(turn), still, still)


def _paint_staging(staging: Staging, num_frames: int, side: int, rng: np.random.Generator) -> Array:
    moved = pose(staging, num_frames)
    jitter = rng.normal(0, _JITTER, size=(2, num_frames)).astype(np.float32)
    u, v = _plane(moved._replace(x=moved.x + jitter[0], y=moved.y + jitter[1]), side=side)
    cos, sin = np.cos(staging.tilt), np.sin(staging.tilt)
    fine = 6.0 * staging.fineness
    lit = _texture(staging.scene.texture, fine * (cos * u - sin * v), fine * (sin * u + cos * v))
    weight = _soft(lit, _TEXTURE_SOFTNESS)[..., None]
    pictures = (1 - weight) * _rgb(staging.ground) + weight * _rgb(staging.texture)
    p, q = (_wrapped(plane - at) / staging.size for plane, at in zip((u, v), staging.place, strict=True))
    inside = _soft(_shape(staging.scene.shape, p, q), _SHAPE_SOFTNESS)[..., None]
    painted: Array = (1 - inside) * pictures + inside * _rgb(staging.shape)
    return painted


def _pixels(side: int) -> tuple[Array, Array]:
    """x and y of the pixel centres, each (S, S), in half widths from the middle of the picture."""
    line = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return x, y


def _plane(moved: Pose, *, side: int) -> tuple[Array, Array]:
    """The point of the scene that each pixel shows: u and v, each (T, S, S); the inverse of the movement."""
    x, y = (pixels - at[:, None, None] for pixels, at in zip(_pixels(side), (moved.x, moved.y), strict=True))
    shrink = np.exp(-moved.log_scale)[:, None, None]
    cos, sin = shrink * np.cos(moved.angle)[:, None, None], shrink * np.sin(moved.angle)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def _soft(value: Array, softness: float) -> Array:
    """A step from 0 to 1 at value 0, linear over the softness."""
    return np.clip(value / softness * 0.5 + 0.5, 0, 1)


def _wrapped(distance: Array) -> Array:
    """The distance to the nearest point of a grid with spacing `_LATTICE`."""
    return (distance + _LATTICE / 2) % _LATTICE - _LATTICE / 2


def _texture(texture: Texture, u: Array, v: Array) -> Array:
    """Positive where the texture is bright."""
    match texture:
        case "stripes":
            return np.sin(u)
        case "bars":
            return np.sin(v)
        case "diagonals":
            return np.sin((u + v) * 0.75)
        case "checks":
            return np.sin(u * 0.7) * np.sin(v * 0.7)
        case "rings":
            period = 4 * np.pi
            p, q = ((plane + period / 2) % period - period / 2 for plane in (u, v))
            return np.sin(1.5 * np.hypot(p, q))
        case "dots":
            return np.cos(u) + np.cos(v) - 0.7
        case "waves":
            return np.sin(v + 1.5 * np.sin(0.8 * u))
        case "grid":
            return np.maximum(np.cos(u), np.cos(v)) - 0.75
        case "hexagons":
            return np.cos(u) + np.cos(0.5 * u + 0.866 * v) + np.cos(0.5 * u - 0.866 * v) + 0.4
        case "patches":
            return np.sin(0.6 * u + 0.4 * v) + np.sin(0.7 * v - 0.3 * u + 1.3) + np.sin(0.9 * u + 2.0) - 0.3


def _shape(shape: Shape, p: Array, q: Array) -> Array:
    """Positive inside a shape of radius 1; changes by about 1 per radius at its border."""
    radius, across, along = np.hypot(p, q), np.abs(p), np.abs(q)
    match shape:
        case "disc":
            return 0.9 - radius
        case "square":
            return 0.8 - np.maximum(across, along)
        case "diamond":
            return (1.05 - across - along) * 0.7
        case "ring":
            return 0.24 - np.abs(radius - 0.72)
        case "plus":
            return np.maximum(
                np.minimum(0.95 - across, 0.28 - along), np.minimum(0.28 - across, 0.95 - along)
            )  # fmt: skip
        case "triangle":
            return np.minimum(0.6 - q, (0.9 - np.sqrt(3) * across + q) * 0.5)
        case "star":
            return 0.65 + 0.33 * np.cos(5 * np.arctan2(p, -q)) - radius
        case "beam":
            return np.minimum(1.0 - across, 0.35 - along)
        case "crescent":
            return np.minimum(0.95 - radius, np.hypot(p - 0.45, q) - 0.7)
        case "clover":
            return 0.62 + 0.36 * np.cos(3 * np.arctan2(p, -q)) - radius


def _with_look(frames: Array, look: VideoLook, *, seed: int) -> Array:
    """Apply what all frames of a video share, and round: (T, S, S, 3) in [0, 1] -> uint8."""
    side = frames.shape[1]
    x, y = _pixels(side)
    light = (1 - look.vignette * (x**2 + y**2) / 2)[..., None] * _rgb(look.gains)
    pictures = (frames ** np.float32(look.gamma)) * light
    noise = np.random.default_rng([seed, 1]).standard_normal(frames.shape[:3], dtype=np.float32)
    pictures += np.float32(look.grain) * noise[..., None]
    painted = np.kron(np.array(look.logo, dtype=np.float32), np.ones((max(side // 18, 1),) * 2, dtype=np.float32))
    opacity = np.zeros((side, side), dtype=np.float32)
    (right, below), tall = look.logo_corner, len(painted)
    top, left = ((side - tall - 2) if far else 2 for far in (below, right))
    opacity[top : top + tall, left : left + tall] = look.logo_opacity * painted
    pictures = pictures * (1 - opacity[..., None]) + opacity[..., None] * _rgb(look.logo_colour)
    return (np.clip(pictures, 0, 1) * 255 + 0.5).astype(np.uint8)


def _rgb(colour: Colour | Array) -> Array:
    return np.asarray(colour, dtype=np.float32)


def _plain(num_frames: int, side: int, colour: Colour | Array) -> Array:
    return np.broadcast_to(_rgb(colour), (num_frames, side, side, 3)).copy()


def _talker(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    """A head and shoulders that nod a little in front of a plain wall."""
    frames = _plain(num_frames, side, rng.uniform(0.2, 0.6, size=3))
    nod = 0.04 * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * np.arange(num_frames) / FPS + rng.uniform(0, 6))
    x, y = _pixels(side)
    y_TSS = y - nod[:, None, None].astype(np.float32)
    head = _soft(1 - np.hypot(x / 0.38, (y_TSS + 0.2) / 0.5), 0.1)[..., None]
    body = _soft(1 - np.hypot(x / 0.8, (y_TSS - 1.0) / 0.7), 0.1)[..., None]
    frames = frames * (1 - body) + body * _rgb(rng.uniform(0.1, 0.7, size=3))
    painted: Array = frames * (1 - head) + head * _rgb(rng.uniform(0.5, 1.1) * np.array((0.85, 0.65, 0.5)))
    return np.clip(painted, 0, 1)


def _title(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    """Lines that look like words."""
    frames = _plain(num_frames, side, rng.uniform(0.0, 0.3, size=3))
    high = max(side // 16, 1)
    for line in range(3):
        top = side // 4 + line * 3 * high
        left = side // 8
        while left < side * 7 // 8:
            wide = int(rng.integers(high, 4 * high))
            frames[:, top : top + high, left : min(left + wide, side * 7 // 8)] = 0.9
            left += wide + high
    return frames


def _advert(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    """Bright tiles that change every half second."""
    cards = rng.uniform(0.2, 1.0, size=(-(-num_frames // 4), 4, 4, 3)).astype(np.float32)
    big: Array = np.repeat(np.repeat(np.repeat(cards, 4, axis=0), -(-side // 4), axis=1), -(-side // 4), axis=2)
    return big[:num_frames, :side, :side]


def _black(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    return _plain(num_frames, side, rng.uniform(0.0, 0.04, size=3))


def _blur(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    """Blurred colours, as if out of focus."""
    x, y = _pixels(side)
    waves = [np.sin(rng.uniform(-2, 2) * x + rng.uniform(-2, 2) * y + rng.uniform(0, 6)) for _ in range(3)]
    return np.broadcast_to(np.stack(waves, axis=-1) * 0.25 + 0.4, (num_frames, side, side, 3)).astype(np.float32)


def _test_card(num_frames: int, side: int, rng: np.random.Generator) -> Array:
    """Vertical bars in the eight colours."""
    colours = np.array([[(bits >> c) & 1 for c in range(3)] for bits in range(8)], dtype=np.float32)
    bars = colours[rng.permutation(8)][np.arange(side) * 8 // side] * 0.75
    return np.broadcast_to(bars, (num_frames, side, side, 3)).copy()


_FILLERS = {
    "talker": _talker,
    "title": _title,
    "advert": _advert,
    "black": _black,
    "blur": _blur,
    "test-card": _test_card,
}
