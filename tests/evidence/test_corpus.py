"""A made corpus is the same for the same seed, goes through split and index, and grows without changing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from commands import assert_one_line, hico

from hico_core.base.errors import HicoError, UsageError
from hico_core.base.files import lock
from hico_core.evidence.corpus import CorpusRecipe, labels_of, make_corpus, read_labels, subset_of
from hico_core.evidence.painting import paint
from hico_core.evidence.scenery import FPS, draw_scenery, draw_script

pytestmark = pytest.mark.videos

RECIPE = CorpusRecipe(videos=6, seed=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "corpus"
    make_corpus(RECIPE, folder)
    return folder


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_videos_show_what_was_painted(corpus: Path) -> None:
    """Lossy, and at an eighth of a second a frame."""
    scenery = draw_scenery(2)
    for number in range(6):
        path = corpus / subset_of(number) / f"made_{number:05d}.mp4"
        painted = paint(draw_script(scenery, seed=2, number=number, design="scenes", look=0.5), side=64)
        shown = frames_of(path)
        assert shown.shape == painted.shape
        error = np.abs(shown.astype(float) - painted).mean(axis=(1, 2, 3))
        assert error.max() < 12  # of 255; the colours are stored at half the resolution
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate == FPS


def test_the_same_seed_gives_the_same_frames_and_a_larger_corpus_begins_with_a_smaller(
    corpus: Path, tmp_path: Path
) -> None:
    make_corpus(RECIPE, tmp_path / "again")
    make_corpus(RECIPE.model_copy(update={"videos": 7}), tmp_path / "again")
    names = sorted(path.relative_to(corpus) for path in corpus.rglob("*.mp4"))
    assert len(names) == 6
    assert len(list((tmp_path / "again").rglob("*.mp4"))) == 7
    for name in names:
        assert np.array_equal(frames_of(corpus / name), frames_of(tmp_path / "again" / name))
    assert read_labels(tmp_path / "again")[: len(read_labels(corpus))] == read_labels(corpus)


def test_labels_cover_each_video(corpus: Path) -> None:
    labels = read_labels(corpus)
    assert labels == list(labels_of(RECIPE))
    for number in range(6):
        own = [label for label in labels if label.video == f"made_{number:05d}"]
        assert [label.start for label in own] == [0.0, *(label.end for label in own[:-1])]
        assert own[-1].end == 20.0
        assert {label.subset for label in own} == {subset_of(number)}
        assert len({label.topic for label in own}) == 1
        assert all(label.action and label.scene and label.filler is None for label in own)


def test_it_goes_through_split_and_index(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert hico("split", corpus / "train", root=root).returncode == 0
    assert hico("split", corpus / "test", "--subset", "test", root=root).returncode == 0
    done = hico("index", "--json", root=root)
    assert json.loads(done.stdout)["num_videos"] == 6


def test_the_command(tmp_path: Path) -> None:
    command = ("demo", "--corpus-only", tmp_path / "c", "--videos", "3", "--seed", "4", "--design", "fillers")
    done = hico(*command)
    assert done.returncode == 0, done.stderr
    assert "hico split" in done.stdout
    assert any(label.filler for label in read_labels(tmp_path / "c"))
    assert hico(*command).returncode == 0
    assert_one_line(hico(*command[:-2]), 2, str(tmp_path / "c"), "seed 4", "design fillers")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    assert_one_line(hico("demo", "--corpus-only", tmp_path / "other"), 2, "not empty", "new folder")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    assert_one_line(hico("demo", "--corpus-only", tmp_path / "other/thesis.tex"), 2, "is a file; name a folder")
    assert_one_line(hico(*command, "--root", tmp_path), 2, "--root: has no effect with --corpus-only")


def test_two_at_once_and_damage_are_told(corpus: Path) -> None:
    with lock(corpus / ".lock", refusal=""), pytest.raises(HicoError, match="another command is making a corpus here"):
        make_corpus(RECIPE, corpus)
    with pytest.raises(UsageError, match="contains a corpus of videos 6"):
        make_corpus(RECIPE.model_copy(update={"videos": 3}), corpus)
    kept = (corpus / "labels.jsonl").read_text()
    try:
        (corpus / "labels.jsonl").write_text(kept[:-20])
        with pytest.raises(HicoError, match=r"labels\.jsonl: is missing or damaged"):
            read_labels(corpus)
    finally:
        (corpus / "labels.jsonl").write_text(kept)


@pytest.mark.processes
def test_a_kill_leaves_no_half_video(tmp_path: Path) -> None:
    """Killed when the second video is written, but not there yet; the same command makes what is missing."""
    command = [sys.executable, "-m", "hico_cli", "demo", "--corpus-only", str(tmp_path / "c"), "--videos", "3"]
    # The third and fourth of the files: corpus.json and labels.jsonl come first.
    died = subprocess.run(command, env={**os.environ, "HICO_FAULT": "file.written:4"}, capture_output=True)
    assert died.returncode == -9
    assert len(list((tmp_path / "c").rglob("*.mp4"))) == 1
    subprocess.run(command, check=True, capture_output=True)
    assert len(list((tmp_path / "c").rglob("*.mp4"))) == 3
    assert not list((tmp_path / "c").rglob(".*.tmp*"))
