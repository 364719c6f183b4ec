"""A corpus packed from a clone: which clips, which sessions, which folds."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from made_videos import numbered_video
from real_corpus import Clip, clips_of, fold_of, join, pack, pack_corpus, sessions_of

from hico_core.base.errors import HicoError


def clip(label: str, group: str) -> Clip:
    return Clip(f"{label}/{group}.mp4", label, group)


CLIPS = [clip(label, f"place{place}") for place in range(12) for label in ("fight", "noFight") if place or label]


def test_a_group_stands_in_one_test_list() -> None:
    folds = fold_of(CLIPS)
    assert sorted(folds) == sorted({one.group for one in CLIPS})
    counts = [list(folds.values()).count(fold) for fold in range(5)]
    assert max(counts) - min(counts) <= 1


def test_a_session_has_all_clips_of_a_group_with_several_labels() -> None:
    alone = clip("fight", "alone")
    sessions = sessions_of([*CLIPS, alone], seed=3)
    assert alone.group not in sessions
    assert {group: sorted(own) for group, own in sessions.items()} == {
        group: sorted(one for one in CLIPS if one.group == group) for group in sessions
    }
    assert sessions == sessions_of([*CLIPS, alone], seed=3)
    assert sessions != sessions_of([*CLIPS, alone], seed=4)


@pytest.mark.parametrize(
    ("corpus", "path", "label"),
    [("ego_gest", "testvideo/testvideo_carret_12.mp4", "carret"), ("fight_surv", "noFight/nofi003.mp4", "noFight")],
)
def test_where_a_label_stands(corpus: str, path: str, label: str) -> None:
    table = [{"corpus": corpus, "clip": path, "group": "a"}, {"corpus": "another", "clip": path, "group": "a"}]
    (found,) = clips_of(corpus, table)
    assert (found.label, found.packed) == (label, f"clips/{label}/{Path(path).stem}.mp4")


@pytest.mark.parametrize("corpus", ["ego_gest", "fight_surv"])
def test_a_clone_of_something_else(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"lacks .* such as .*; give a clone of https://github.com/"):
        pack_corpus(tmp_path / "clone", corpus, tmp_path / corpus)
    assert not (tmp_path / corpus).exists()


@pytest.mark.videos
def test_sizes_and_frames_of_what_is_packed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        numbered_video(tmp_path / f"{name}.mp4", seconds=2, fps="30", size="320x240")
    counts = [pack(tmp_path / f"{name}.mp4", tmp_path / f"packed/{name}.mp4") for name in ("a", "b")]
    assert counts == [30, 30]
    assert join([tmp_path / "packed/a.mp4", tmp_path / "packed/b.mp4"], tmp_path / "joined.mp4") == 60
    with av.open(str(tmp_path / "joined.mp4")) as opened:
        stream = opened.streams.video[0]
        assert (min(stream.width, stream.height), stream.average_rate) == (112, Fraction(15))
