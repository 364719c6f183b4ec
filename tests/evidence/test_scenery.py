"""What made videos show is drawn from a seed, action independently of topic."""

from collections import Counter
from itertools import chain

import pytest

from hico_core.base.choices import Design
from hico_core.evidence.scenery import (
    ACTIONS,
    NUM_TOPICS,
    SCENES_PER_TOPIC,
    VIDEO_FRAMES,
    Script,
    draw_scenery,
    draw_script,
)

SCENERY = draw_scenery(3)


def scripts(count: int, *, design: Design = "scenes", look: float = 0.5) -> list[Script]:
    return [draw_script(SCENERY, seed=3, number=number, design=design, look=look) for number in range(count)]


def test_each_scene_belongs_to_one_topic() -> None:
    dealt = list(chain.from_iterable(SCENERY.scenes))
    assert len(SCENERY.scenes) == NUM_TOPICS
    assert [len(scenes) for scenes in SCENERY.scenes] == [SCENES_PER_TOPIC] * NUM_TOPICS
    assert len(set(dealt)) == len(dealt)
    assert draw_scenery(3) == SCENERY != draw_scenery(4)


@pytest.mark.parametrize("design", ["scenes", "fillers"])
def test_segments_fill_the_video_and_keep_to_its_topic(design: Design) -> None:
    for script in scripts(40, design=design):
        end = 0
        for segment in script.segments:
            assert segment.first_frame == end
            assert 16 <= segment.num_frames <= 24  # 2 to 3 s
            assert (segment.staging is None) == (segment.filler is not None)
            if segment.staging is not None:
                assert segment.staging.scene in SCENERY.scenes[script.topic]
            end += segment.num_frames
        assert end == VIDEO_FRAMES


def test_the_action_says_nothing_of_the_topic() -> None:
    """A chi-squared test of independence, whose statistic has mean 63 and standard deviation 11 here."""
    drawn = Counter(
        (script.topic, segment.staging.motion.action)
        for script in scripts(1000)
        for segment in script.segments
        if segment.staging is not None
    )
    total = sum(drawn.values())
    of_topic = [sum(drawn[topic, action] for action in ACTIONS) for topic in range(NUM_TOPICS)]
    of_action = {action: sum(drawn[topic, action] for topic in range(NUM_TOPICS)) for action in ACTIONS}
    expected = {(t, a): of_topic[t] * of_action[a] / total for t in range(NUM_TOPICS) for a in ACTIONS}
    statistic = sum((drawn[pair] - expected[pair]) ** 2 / expected[pair] for pair in expected)
    assert len(expected) == 80
    assert statistic < 63 + 4 * 11.2


def test_half_of_the_segments_of_the_other_design_are_fillers() -> None:
    kinds = [segment.filler is not None for script in scripts(200, design="fillers") for segment in script.segments]
    assert 0.45 < sum(kinds) / len(kinds) < 0.55
    assert not any(segment.filler for script in scripts(200) for segment in script.segments)


def test_a_video_does_not_depend_on_how_many_there_are_and_its_content_not_on_the_look() -> None:
    assert scripts(5) == scripts(9)[:5]
    plain, strong = (scripts(5, look=look) for look in (0.0, 1.0))
    assert [script.segments for script in plain] == [script.segments for script in strong]
    for script in plain:
        look = script.look
        assert (look.gains, look.gamma, look.vignette, look.grain, look.logo_opacity) == ((1, 1, 1), 1, 0, 0, 0)
    assert len({script.look for script in strong}) == 5
