"""A comparison tests each clip once, by groups, and says how sure its accuracies and differences are."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from made_videos import numbered_video
from sklearn.linear_model import LogisticRegression

from hico_core.base.errors import HicoError, UsageError
from hico_core.checkpoints.content import LAST, Content, Progress, export_encoder, write_checkpoint
from hico_core.config import AugmentConfig, DataConfig, preset
from hico_core.corpus.sources.grouped_lists import GroupedClip, GroupedList
from hico_core.data.pictures import ClipShape, picture_for
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.evaluation.clip_features import Computing
from hico_core.transfer.evaluation.compare import (
    ProbeSettings,
    compare,
    encoders_to_compare,
    finished_runs,
    notes_on_encoders,
    notes_on_results,
    predict_by_folds,
)
from hico_core.transfer.evaluation.comparison import ComparedRow, Comparison, read_comparison, write_comparison
from hico_core.transfer.evaluation.folds import SplitClips, split_as_listed, split_into_folds
from hico_core.transfer.evaluation.probe import LabelledRows, linear_probe_of_scaled, scaled_alike


def listed(labels: str, groups: str) -> GroupedList:
    pairs = enumerate(zip(labels, groups, strict=True))
    return GroupedList([GroupedClip(Path(f"/{n:03}.mp4"), *pair) for n, pair in pairs], True, [])


def blobs(labels: str, *, spread: float, seed: int = 0, views: int = 2) -> list[np.ndarray]:
    """Rows around the centre of their class."""
    centres = dict(zip("abc", np.random.default_rng(7).normal(size=(3, 24)), strict=True))
    rng = np.random.default_rng(seed)
    return [(centres[label] + spread * rng.normal(size=(views, 24))).astype(np.float32) for label in labels]


def test_a_comparison_is_a_line_and_a_table() -> None:
    common: dict[str, Any] = {
        "weights": None,
        "weights_sha256": None,
        "probe": "linear",
        "num_test_clips": 60,
        "num_test_groups": 12,
    }
    common |= {"num_classes": 4, "chance": 0.25, "most_frequent_class": 0.3, "accuracy_low": 0.4, "accuracy_high": 0.6}
    first: dict[str, Any] = {
        "encoder": "pixels",
        "accuracy": 0.5,
        "difference": None,
        "difference_low": None,
        "difference_high": None,
    }
    other: dict[str, Any] = {
        "encoder": "<b>",
        "accuracy": 0.55,
        "difference": 0.05,
        "difference_low": -0.1,
        "difference_high": 0.2,
    }
    rows = [ComparedRow(**common, **each) for each in (first, other)]
    found = Comparison(rows, pa.table({}), 0)
    assert repr(found) == "Comparison(pixels, <b>; 60 test clips)"
    shown = found._repr_html_()
    assert "60 test clips in 12 groups, with 95 % intervals; chance 25.0 %" in shown
    assert "<td>pixels</td><td>linear</td><td>50.0 (40.0 to 60.0)</td><td></td>" in shown
    assert "<td>&lt;b&gt;</td><td>linear</td><td>55.0 (40.0 to 60.0)</td><td>5.0 (-10.0 to 20.0)</td>" in shown


LABELS = "abc" * 20
GROUPS = "".join(chr(ord("A") + number // 5) for number in range(60))


@pytest.mark.slow
def test_folds_predict_as_scikit_learn_does() -> None:
    """Clip by clip, from the same rows: logistic regression whose minimum nobody regularises much."""
    split = split_into_folds(listed(LABELS, GROUPS), num_folds=2)
    features = blobs(LABELS, spread=1.6)
    found = predict_by_folds(features, split, num_neighbours=5)
    theirs = np.full(60, -1)
    label_N = np.unique(split.labels, return_inverse=True)[1]
    for fold in range(2):
        sides = [np.flatnonzero(side) for side in (split.tested_in != fold, split.tested_in == fold)]
        rows = [
            LabelledRows(
                np.concatenate([features[c] for c in clips]), np.repeat(label_N[clips], 2), np.repeat(clips, 2)
            )
            for clips in sides
        ]
        train, test = scaled_alike(*rows)
        model = LogisticRegression(C=1, max_iter=2000).fit(train.features, train.labels)
        theirs[sides[1]] = model.predict_proba(test.features).reshape(-1, 2, 3).mean(axis=1).argmax(axis=1)
    ours, expected = (np.mean(predicted == label_N) for predicted in (found["linear"], theirs))
    assert 0.6 < expected < 1
    assert ours == pytest.approx(expected, abs=0.07)
    assert np.mean(found["linear"] == theirs) > 0.85
    assert np.mean(found["knn"] == label_N) > 0.6


def test_a_probe_without_decay_is_scikit_learns() -> None:
    rows = LabelledRows(np.concatenate(blobs(LABELS, spread=2.0, views=1)), np.arange(60) % 3, np.arange(60))
    train, test = scaled_alike(*(rows.only(side) for side in (rows.videos < 40, rows.videos >= 40)))
    assert np.sqrt(np.square(train.features).sum(axis=1).mean()) == pytest.approx(5)
    ours = linear_probe_of_scaled(train, test, settings=[(0.1, 0.025)], held_out=[], steps=2000, seed=0)
    theirs = LogisticRegression(C=1 / (0.025 * 40), max_iter=5000, tol=1e-8).fit(train.features, train.labels)
    np.testing.assert_array_equal(ours.predictions, theirs.predict(test.features))


@pytest.mark.slow
def test_labels_of_tested_clips_are_not_known() -> None:
    """Others than the tested clip's own decide: with another label, it is predicted the same."""
    plain = listed(LABELS[:30], GROUPS[:30])
    split = split_into_folds(plain, num_folds=3)
    features = blobs(LABELS[:30], spread=1.6)
    is_first = split.tested_in == 0
    wrong = [
        clip._replace(label="abc"[("abc".index(clip.label) + 1) % 3]) if changes else clip
        for clip, changes in zip(split.clips, is_first, strict=True)
    ]
    found, other = (
        predict_by_folds(features, SplitClips(clips, np.where(is_first, 0, -1), []), num_neighbours=5)
        for clips in (split.clips, wrong)
    )
    np.testing.assert_array_equal(found["linear"], other["linear"])
    np.testing.assert_array_equal(found["knn"], other["knn"])


@pytest.mark.parametrize(
    ("train", "test", "why"),
    [
        (("ab", "AB"), ("ab", "AC"), "share 1 group, such as 'A'"),
        (("ab", "AB"), ("ab", "CC"), "--test: all its clips are in one group, 'C'"),
        (("aa", "AB"), ("bb", "CD"), "no class has clips for both training and testing"),
    ],
)
def test_lists_that_cannot_be_compared(train: tuple[str, str], test: tuple[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        split_as_listed(listed(*train), listed(*test))


def test_lists_to_train_and_to_test() -> None:
    split = split_as_listed(listed("abab", "AABB"), listed("abc", "CDE"))
    assert split.tested_in.tolist() == [-1, -1, -1, -1, 0, 0, 0]
    (remark,) = (remark for remark in split.remarks if "clips to train on" in remark)
    assert remark.startswith("class c: ")


def test_a_list_without_groups_is_remarked() -> None:
    alone = split_into_folds(listed("abababab", "ABCDEFGH")._replace(has_groups=False), num_folds=4)
    assert len(alone.remarks) == 1 and "each clip is its own" in alone.remarks[0]


@pytest.mark.parametrize(
    ("accuracies", "num_groups", "notes"),
    [
        ({"run": 0.5, "pixels": 0.9}, 10, ["no encoder is better than .* class \\(50.0 %\\)"]),
        ({"run": 0.5, "other": 0.51}, 9, ["only 9 test groups: with fewer than ten, the intervals are too narrow"]),
        ({"pixels": 0.4}, 10, []),
    ],
)
def test_what_is_said_of_results(accuracies: dict[str, float], num_groups: int, notes: list[str]) -> None:
    """All encoders have to be that bad, and baselines do not count."""
    common: dict[str, Any] = dict.fromkeys(("weights", "weights_sha256", "difference_low", "difference_high"))
    common |= {"num_test_clips": 20, "num_test_groups": num_groups, "num_classes": 2, "most_frequent_class": 0.5}
    common |= {"probe": "knn", "accuracy_low": 0.0, "accuracy_high": 1.0, "difference": None, "chance": 0.5}
    rows = [ComparedRow(encoder=one, accuracy=it, **common) for one, it in accuracies.items()]
    for note, said in zip(notes_on_results(rows), notes, strict=True):
        assert re.match(said, note)


def test_unfinished_runs_and_different_inputs_are_noted(tmp_path: Path) -> None:
    """The difference of two encoders with different inputs is not only that of their training."""
    config = preset("hacs-hico-s").model_dump(mode="json")
    picture, clip = picture_for(DataConfig(crop_size=64), AugmentConfig()), ClipShape(8, 3.75)
    for name, epochs_done in (("one", 12.0), ("two", 300.0)):
        run = tmp_path / "runs" / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "export").mkdir()
        export_encoder(run / "export/encoder.safetensors", S3DGTiny(), picture, clip)
        progress = Progress(epochs_done=epochs_done)
        content = Content(config=config, model={"x": torch.zeros(1)}, optimizer={}, progress=progress)
        write_checkpoint(run / "checkpoints" / LAST, content)
    files = finished_runs(tmp_path)

    def notes(texts: list[str]) -> list[str]:
        encoders = encoders_to_compare(texts, runs=files, with_baselines=True, warn=print)
        return notes_on_encoders(encoders, files)

    unfinished = f"unfinished training: one (after 12 of {config['train']['epochs']} epochs)"
    assert notes([]) == [unfinished]
    assert notes(["s3dg-tiny=random"]) == [
        unfinished,
        "the encoders differ in their input, which may explain differences in accuracy: s3dg-tiny=random: 16 frames of "
        "112 x 112 at 7.5 per second; one, two: 8 frames of 64 x 64 at 3.75 per second",
    ]


def test_which_encoders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"runs/{name}/export").mkdir(parents=True)
        export_encoder(tmp_path / f"runs/{name}/export/encoder.safetensors", S3DGTiny())
    (tmp_path / "runs/unfinished/checkpoints").mkdir(parents=True)

    def named(texts: list[str], *, runs: bool, baselines: bool) -> list[str]:
        files = finished_runs(tmp_path) if runs else []
        return list(encoders_to_compare(texts, runs=files, with_baselines=baselines, warn=print))

    assert named(["s3dg-tiny=random"], runs=True, baselines=True) == [
        *("s3dg-tiny=random", "one", "two"),
        *("pixels", "motion"),
    ]
    assert named(["motion"], runs=False, baselines=True) == ["motion", "pixels"]
    assert named([], runs=True, baselines=False) == ["one", "two"]
    twice = [str(tmp_path / f"runs/{name}/export/encoder.safetensors") for name in ("one", "two")]
    (tmp_path / "elsewhere/one/export").mkdir(parents=True)
    twice[1] = str(tmp_path / "elsewhere/one/export/encoder.safetensors")
    export_encoder(Path(twice[1]), S3DGTiny())
    assert named(twice, runs=False, baselines=False) == twice, "of two runs with one name, paths"
    with pytest.raises(UsageError, match="--encoder pixels: is given twice"):
        named(["pixels", "pixels"], runs=False, baselines=True)
    with pytest.raises(UsageError, match="no encoder given"):
        named([], runs=False, baselines=True)
    with pytest.raises(UsageError, match="no run has exported an encoder"):
        finished_runs(tmp_path / "elsewhere")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitClips:
    """Clips of two classes, which differ in size, of which one cannot be read."""
    folder = tmp_path_factory.mktemp("clips")
    clips = []
    for number in range(8):
        label = "wide" if number % 2 else "high"
        path = folder / f"{number}.mp4"
        numbered_video(path, seconds=1, size="160x80" if number % 2 else "80x120")
        clips.append(GroupedClip(path, label, f"g{number // 2}"))
    (folder / "8.mp4").write_bytes(b"no video")
    clips.append(GroupedClip(folder / "8.mp4", "high", "g3"))
    return split_into_folds(GroupedList(clips, True, []), num_folds=2)


def compared(split: SplitClips, kept: Path, said: list[str]) -> Comparison:
    return compare(
        encoders_to_compare(["s3dg-tiny=random"], runs=[], with_baselines=True, warn=print),
        split,
        kept,
        settings=ProbeSettings(num_views=1, num_neighbours=3),
        computing=Computing("cpu", 0),
        on_progress=lambda done, text: said.append(f"{done:.2f} {text}"),
    )


@pytest.mark.videos
def test_a_comparison_is_computed_once_and_goes_on(split: SplitClips, tmp_path: Path) -> None:
    said: list[str] = []
    found = compared(split, tmp_path / ".kept", said)
    assert found.num_left_out == 1
    assert [(row.encoder, row.probe) for row in found.rows] == [
        (encoder, probe) for encoder in ("s3dg-tiny=random", "pixels", "motion") for probe in ("linear", "knn")
    ]
    first, pixels = found.rows[0], found.rows[2]
    assert (first.num_test_clips, first.num_test_groups, first.num_classes, first.chance) == (8, 4, 2, 0.5)
    assert first.difference is None and first.weights == "random"
    assert pixels.difference == pytest.approx(pixels.accuracy - first.accuracy) and pixels.weights is None
    assert found.predictions.num_rows == 3 * 2 * 8
    write_comparison(tmp_path, found)
    assert read_comparison(tmp_path) == found.rows
    right = found.predictions.to_pandas().groupby(["encoder", "probe"])["correct"].mean()
    assert right["pixels", "linear"] == pixels.accuracy
    assert "3.50 s3dg-tiny=random: probes, fold 2 of 2" in said
    assert said[-1] == "6.00 motion: probes" and "0.11 s3dg-tiny=random: features of 1/9 clips" in said
    # Again, after what a kill may have left undone: only that is computed.
    files = sorted((tmp_path / ".kept").glob("*/*.npy"))
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    said_again: list[str] = []
    again = compared(split, tmp_path / ".kept", said_again)
    assert again.rows == found.rows
    changed = [file for file in files if file.stat().st_mtime_ns != times[file]]
    assert changed == [files[0]]
    assert sum("features of" in line for line in said_again) <= 1 + 3, "the clip that cannot be read is tried again"
    for file in (files[0], next((tmp_path / ".kept/predictions").iterdir())):
        whole = file.read_bytes()
        file.write_bytes(bytes(len(whole)))  # as after a power cut
        with pytest.raises(HicoError, match=rf"{file.name}: is damaged; remove it, and run `hico compare` again"):
            compared(split, tmp_path / ".kept", [])
        file.write_bytes(whole)


@pytest.mark.videos
def test_another_video_or_another_view_is_computed(split: SplitClips, tmp_path: Path) -> None:
    few = split.only(np.arange(9) < 8)
    compared(few, tmp_path, [])
    Path(str(few.clips[0].path)).touch()  # another time of change
    said: list[str] = []
    compared(few, tmp_path, said)
    assert [line for line in said if "features of" in line] == [
        f"{n}.00 {name}: features of 8/8 clips" for n, name in enumerate(("s3dg-tiny=random", "pixels", "motion"), 1)
    ]


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes(b"no table")
    with pytest.raises(HicoError, match=r"results\.parquet: is damaged"):
        read_comparison(tmp_path)
