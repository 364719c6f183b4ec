"""The labels of made videos are true to their pixels: another way of looking reads the movement back."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from hico_core.evidence.painting import paint, paint_segment
from hico_core.evidence.scenery import (
    ACTIONS,
    FILLERS,
    SHAPES,
    TEXTURES,
    Action,
    Motion,
    Scene,
    Staging,
    VideoSegment,
    draw_scenery,
    draw_script,
)

SIDE = 64
STAGING = Staging(
    scene=Scene("patches", "star"),
    motion=Motion("up", 1.0, 1, 0.5),
    ground=(0.1, 0.1, 0.2),
    texture=(0.5, 0.4, 0.4),
    shape=(0.9, 0.8, 0.2),
    place=(0.1, -0.1),
    size=0.5,
    fineness=1.0,
    tilt=0.1,
)


def segment_of(staging: Staging | None, *, filler: str | None = None, seed: int = 1) -> VideoSegment:
    return VideoSegment(first_frame=0, num_frames=20, staging=staging, filler=filler, seed=seed)  # type: ignore[arg-type]


class Step(NamedTuple):
    """From one frame to the next: pixels to the right and down, radians, factor."""

    x: int = 0
    y: int = 0
    angle: float = 0.0
    zoom: float = 1.0


STEPS = [
    *(Step(x, y) for x in range(-6, 7) for y in range(-6, 7)),
    *(Step(angle=angle) for angle in np.linspace(-0.24, 0.24, 13) if abs(angle) > 0.02),
    *(Step(zoom=zoom) for zoom in np.linspace(0.9, 1.1, 11) if abs(zoom - 1) > 0.01),
]


@cache
def sources_of(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """From which pixel, row and column, each comes in a step: a twin of what the painter does, in whole pixels."""
    middle = (SIDE - 1) / 2
    after_y, after_x = np.mgrid[0:SIDE, 0:SIDE] - middle
    x, y = after_x - step.x, after_y - step.y
    cos, sin = np.cos(step.angle) / step.zoom, np.sin(step.angle) / step.zoom
    before_x, before_y = cos * x + sin * y + middle, cos * y - sin * x + middle
    return before_y.round().astype(int).clip(0, SIDE - 1), before_x.round().astype(int).clip(0, SIDE - 1)


def likeliest_step(before: np.ndarray, after: np.ndarray) -> Step:
    """The one that explains the middle of the next frame best; what comes in from outside nobody can know."""
    inside = slice(10, SIDE - 10)
    grey, target = before.mean(axis=2), after.mean(axis=2)[inside, inside]
    errors = [np.abs(grey[sources_of(step)][inside, inside] - target).mean() for step in STEPS]
    return STEPS[int(np.argmin(errors))]


def action_seen(frames: np.ndarray) -> Action:
    steps = [likeliest_step(before, after) for before, after in pairwise(frames)]
    kinds = Counter("turn" if step.angle else "zoom" if step.zoom != 1 else "shift" for step in steps)
    kind = kinds.most_common(1)[0][0]
    if kind == "turn":
        return "turning"
    if kind == "zoom":
        return "growing" if np.mean([step.zoom for step in steps]) > 1 else "shrinking"
    shifts = np.array([(step.x, step.y) for step in steps], dtype=float)
    mean_x, mean_y = shifts.mean(axis=0)
    if np.hypot(mean_x, mean_y) > 0.6 * np.hypot(*shifts.T).mean():
        return "sideways" if abs(mean_x) > abs(mean_y) else "down" if mean_y > 0 else "up"
    narrow, wide = np.linalg.svd(shifts - shifts.mean(axis=0), compute_uv=False)[::-1]
    return "shaking" if narrow < 0.4 * wide else "circling"


@pytest.mark.parametrize("action", ACTIONS)
def test_the_movement_is_the_one_that_the_label_names(action: Action) -> None:
    rng = np.random.default_rng(5)
    for trial in range(4):
        motion = Motion(action, float(rng.uniform(0.75, 1.3)), int(rng.choice([-1, 1])), float(rng.uniform(0, 6)))
        staging = replace(STAGING, motion=motion, place=tuple(rng.uniform(-0.5, 0.5, size=2)))
        frames = paint_segment(segment_of(staging, seed=trial), side=SIDE)
        assert action_seen(frames) == action, motion


@pytest.mark.slow
def test_drawn_videos_move_as_their_labels_say() -> None:
    """Whole videos of the corpus, with whatever scene was drawn; some stripes hide some movements."""
    scenery = draw_scenery(0)
    segments = [
        segment
        for number in range(8)
        for segment in draw_script(scenery, seed=0, number=number, design="scenes", look=0.5).segments
    ]
    right = 0
    for segment in segments:
        assert segment.staging is not None
        right += action_seen(paint_segment(segment, side=SIDE)) == segment.staging.motion.action
    assert len(segments) == 64
    assert right / len(segments) > 0.8


def test_all_textures_and_shapes_differ() -> None:
    still = replace(STAGING, motion=Motion("shaking", 0.0, 1, 0.0))
    textures = [paint_segment(segment_of(replace(still, scene=Scene(t, "disc"))), side=SIDE)[0] for t in TEXTURES]
    shapes = [paint_segment(segment_of(replace(still, scene=Scene("bars", s))), side=SIDE)[0] for s in SHAPES]
    for pictures in (textures, shapes):
        assert len(pictures) == 10
        for place, picture in enumerate(pictures):
            assert all(np.abs(picture - other).mean() > 0.01 for other in pictures[:place])


@pytest.mark.parametrize("filler", FILLERS)
def test_fillers_are_pictures_and_say_nothing_of_the_scene(filler: str) -> None:
    frames = paint_segment(segment_of(None, filler=filler), side=SIDE)
    assert frames.shape == (20, SIDE, SIDE, 3)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_the_same_script_gives_the_same_frames_and_its_look_is_all_that_a_look_changes() -> None:
    scenery = draw_scenery(1)
    one, other = (draw_script(scenery, seed=1, number=4, design="fillers", look=look) for look in (0.5, 0.0))
    assert np.array_equal(paint(one, side=SIDE), paint(one, side=SIDE))
    plain = np.concatenate([paint_segment(segment, side=SIDE) for segment in other.segments])
    assert np.abs(paint(other, side=SIDE) / 255 - plain).max() < 1 / 255
    assert np.abs(paint(one, side=SIDE) / 255 - plain).mean() > 0.01
