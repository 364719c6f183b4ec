"""Both sides of a test give a class one number, whatever their lists name."""

from pathlib import Path

import pytest

from hico_cli.labels import labelled, labelled_sides


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["bow", "jump"], [0, 1]),
        (["jump"], [1]),  # by itself, the list would give it 0
        (["wave"], [2]),  # which the other side has not: no number of its classes
    ],
)
def test_a_list_is_numbered_by_the_other_side(names: list[str], numbers: list[int], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a.mp4 bow\nb.mp4 jump\n")
    (tmp_path / "other.txt").write_text("".join(f"{name}.mp4 {name}\n" for name in names))
    (one,) = labelled([str(tmp_path / "one.txt")], place=tmp_path, subset="train", data_root=None)
    assert one.classes == {0: "bow", 1: "jump"}
    (other,) = labelled([str(tmp_path / "other.txt")], place=tmp_path, subset="test", data_root=None, known=one.classes)
    assert [video.label for video in other.videos] == numbers


def test_each_test_list_is_numbered_by_its_own_training_list(tmp_path: Path) -> None:
    for name, classes in (("bows", ["bow", "jump"]), ("waves", ["wave", "jump", "sit"])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{label}.mp4 {label}\n" for label in classes))
    lists = [str(tmp_path / f"{name}.txt") for name in ("bows", "waves")]
    sides = labelled_sides(lists, lists, place=tmp_path, data_root=None)
    numbers = [[[(video.video_id, video.label) for video in one.videos] for one in side] for side in sides]
    assert numbers[0] == numbers[1]
    assert numbers[0] == [[("bow", 0), ("jump", 1)], [("jump", 0), ("sit", 1), ("wave", 2)]]
