"""The benchmark on real videos asks as `hico compare` does, and treats all arms alike."""

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import real
from arms import RATE, setting_of, supervision
from real_cells import (
    MEANINGS,
    PRETRAINED,
    Design,
    RealCell,
    RealCorpus,
    Training,
    finds_its_place,
    prepare_real,
    run_real,
)
from real_corpus import join
from real_findings import REAL_PROBES, accuracy, difference, interval, of_design, real_verdicts, with_several_labels
from real_page import pages
from real_parts import REAL_PARTS, cells_of, read_real
from results_page import DOCS
from running import Experiment, file_of, run_cells
from trainings import write_untrained

from hico_core.config import flat_settings
from hico_core.evidence.arms import HICO, pretraining
from hico_core.evidence.corpus import write_video
from hico_core.transfer.evaluation.clip_features import Computing
from hico_core.transfer.evaluation.compare import ProbeSettings, compare, encoders_to_compare

CORPUS = RealCorpus(Path("somewhere/ego_gest"))
SMALL = Training(pixels=24, stride=2, augmentation="weak", steps=2, rate=RATE)
GROUPS = [f"place{number}" for number in range(5)]
LABELS = ("left", "right")


def moving(label: str, group: str) -> np.ndarray:
    """A square that moves over a ground with the colour of its place: 36 frames (T, S, S, 3) uint8."""
    frames = np.full((36, 64, 64, 3), 40, dtype=np.uint8)
    frames[..., GROUPS.index(group) % 3] += np.uint8(30 * GROUPS.index(group))
    for number, frame in enumerate(frames):
        column = number if label == "right" else 48 - number
        frame[24:40, column : column + 16] = 220
    return frames


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> RealCorpus:
    """As scripts/real_corpus.py writes it."""
    folder = tmp_path_factory.mktemp("real") / "moving"
    (folder / "untrimmed").mkdir(parents=True)
    lines, segments = [], ["video,session,label,start_s,end_s,source_clip"]
    for group in GROUPS:
        clips = [f"clips/{label}/{label}_{group}.mp4" for label in LABELS]
        for number, (label, clip) in enumerate(zip(LABELS, clips, strict=True)):
            (folder / clip).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / clip, moving(label, group))
            lines.append(f"{clip}\t{label}\t{group}\n")
            segments.append(f"untrimmed/{group}.mp4,{group},{label},{4.5 * number},{4.5 * number + 4.5},{clip}")
        join([folder / clip for clip in clips], folder / "untrimmed" / f"{group}.mp4")
    (folder / "clips.txt").write_text("".join(lines))
    (folder / "untrimmed_segments.csv").write_text("\n".join(segments) + "\n")
    return RealCorpus(folder)


@pytest.mark.videos
def test_what_happens_in_each_second(corpus: RealCorpus) -> None:
    seconds = corpus.seconds_of_sessions()
    assert seconds.videos == GROUPS
    of_video = seconds.of_each_video(seconds.labels_N)[2]
    assert [seconds.classes[label] for label in of_video] == ["left"] * 4 + ["right"] * 5


def cells_on(corpus: RealCorpus) -> list[RealCell]:
    trained: list[tuple[str, Design]] = [
        ("hico-cuts", "untrimmed"),
        ("simclr-far-3", "trimmed"),
        ("supervised", ""),
    ]
    return [
        RealCell(corpus=corpus, arm="pixels"),
        RealCell(corpus=corpus, arm="untrained", seed=4, training=replace(SMALL, steps=0, rate=0.0)),
        *(RealCell(corpus=corpus, arm=arm, design=design, seed=4, training=SMALL) for arm, design in trained),
    ]


@pytest.fixture(scope="module")
def out(corpus: RealCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run_cells(folder, cells_on(corpus), Experiment(prepare_real, run_real), processes=1)
    return folder


@pytest.mark.videos
@pytest.mark.processes
def test_each_clip_is_asked_once(corpus: RealCorpus, out: Path) -> None:
    results = read_real(out)
    assert set(results["arm"]) == {cell.arm for cell in cells_on(corpus)}
    of_seconds = results[results["probe"] == "second"]
    assert (of_seconds.groupby("arm")["clip"].nunique() == 9 * len(GROUPS)).all()
    assert "supervised" not in set(of_seconds["arm"])  # its encoders are one for each fold of clips
    for _, rows in results.drop(of_seconds.index).groupby(["arm", "probe"]):
        assert sorted(rows["clip"]) == sorted(
            f"clips/{label}/{label}_{group}.mp4" for label in LABELS for group in GROUPS
        )
    assert set(results["probe"]) == set(REAL_PROBES)
    assert not any((out / "corpora").iterdir())


@pytest.mark.videos
@pytest.mark.processes
def test_the_numbers_are_those_of_hico_compare(corpus: RealCorpus, out: Path, tmp_path: Path) -> None:
    """Of the same weights."""
    file = tmp_path / "untrained.safetensors"
    write_untrained(file, supervision(num_segments=1, steps=1, rate=RATE, seed=4, setting=SMALL.setting()))
    encoders = encoders_to_compare([str(file), "pixels"], runs=[], with_baselines=False, warn=pytest.fail)
    found = compare(
        encoders, corpus.clips(), tmp_path / "kept", settings=ProbeSettings(1, 20), computing=Computing("cpu", 0)
    )
    measured = read_real(out).groupby(["arm", "probe"])["correct"].mean()
    for row in found.rows:
        assert row.accuracy == measured[row.encoder, row.probe], row.encoder


@pytest.mark.videos
@pytest.mark.processes
def test_the_command_goes_on_and_prints(
    corpus: RealCorpus, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All cells of a part are there already: the results of small trainings, under the names of those."""
    small = {(cell.arm, cell.design): cell for cell in cells_on(corpus)}
    for cell in cells_of("trimmed", corpus, seeds=[1, 2]):
        content = file_of(small["simclr-far-3", "trimmed"], out).read_text()
        content = content.replace('"simclr-far-3"', f'"{cell.arm}"').replace('"seed": 4', f'"seed": {cell.seed}')
        file_of(cell, out).write_text(content)
    real.main([str(corpus.folder), str(out), "--part", "trimmed", "--seeds", "1,2"])
    shown = capsys.readouterr().out
    assert "moving, trimmed: percent right, 95 % interval" in shown
    assert (out / "results.parquet").exists()


@pytest.mark.parametrize(("corpus_name", "said"), [("nothing", "No such file"), ("", "usage")])
def test_what_is_no_corpus(tmp_path: Path, corpus_name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / corpus_name), str(tmp_path / "out")] if corpus_name else []
    with pytest.raises(SystemExit, match="2"):
        real.main(arguments)
    assert said in capsys.readouterr().err


def test_the_plan() -> None:
    cells = [cell for part in REAL_PARTS for cell in cells_of(part, CORPUS, seeds=range(1, 11))]
    assert max(Counter(cell.name for cell in cells).values()) == 1
    assert {cell.arm for cell in cells} == set(MEANINGS)
    trained = [cell for cell in cells if cell.training.steps and cell.seed]
    # One setting for all arms, but for the encoder.
    assert {replace(cell.training, encoder="s3dg-tiny") for cell in trained} == {
        cells_of("supervised", CORPUS, seeds=[1])[0].training
    }
    of_design = Counter(
        (cell.design, cell.arm, cell.training.encoder) for cell in trained if cell.arm in ("hico", "simclr-far-3")
    )
    assert set(of_design.values()) == {10}
    assert {(cell.seed, cell.arm) for cell in cells_of("settings", CORPUS, seeds=[1])} == {(0, "supervised")}


def test_arms_differ_from_hico_in_sampling_loss_and_cuts_alone() -> None:
    def settings(arm: str) -> dict[str, object]:
        setting = setting_of(arm, SMALL.setting())
        return flat_settings(pretraining(PRETRAINED[arm], num_videos=14, steps=3, rate=RATE, seed=1, setting=setting))

    base = settings(HICO.name)
    assert base["augment.flip_probability"] == 0
    for arm in PRETRAINED:
        differ = {key for key, value in settings(arm).items() if value != base[key]} - {"recipe"}
        assert {key.split(".")[0] for key in differ - {"data.cuts"}} <= {"sampling", "loss"}
        assert ("data.cuts" in differ) == (arm == "hico-cuts")


def slow_interval(values_SG: np.ndarray, clips_G: np.ndarray) -> tuple[float, float]:
    """One resample after the other."""
    draw, means = random.Random(1), []
    for _ in range(4000):
        seeds, groups = (draw.choices(range(count), k=count) for count in values_SG.shape)
        right = sum(values_SG[seed, group] for seed in seeds for group in groups)
        means.append(right / (len(seeds) * clips_G[groups].sum()))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def test_the_interval_is_over_seeds_and_groups() -> None:
    rng = np.random.default_rng(0)
    clips_G = np.array([10, 8, 12, 10, 9])
    values_SG = rng.binomial(clips_G, 0.3, size=(4, 5)).astype(float)
    found = interval(values_SG, clips_G)
    assert found.value == pytest.approx(values_SG.sum() / (4 * clips_G.sum()))
    assert found[1:] == pytest.approx(slow_interval(values_SG, clips_G), abs=0.01)
    alike = interval(np.tile(clips_G / 2, (4, 1)), clips_G)
    assert alike == pytest.approx((0.5, 0.5, 0.5))


def rows_of(right: dict[tuple[str, int], int], *, design: str = "untrimmed") -> pd.DataFrame:
    """Of ten clips in five groups, how many are right by arm and seed."""
    rows = [
        {
            **{"corpus": "ego_gest", "arm": arm, "design": design, "seed": seed, "probe": "linear"},
            **{"pixels": 48, "stride": 4, "augmentation": "weak", "steps": 3, "rate": RATE, "seconds": 1.0},
            "encoder": "s3dg-tiny",
            **{"clip": str(clip), "label": str(clip % 2), "group": str(clip // 2), "correct": clip < count},
        }
        for (arm, seed), count in right.items()
        for clip in range(10)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("hico", "far", "design", "met"),
    [
        ([7, 8, 7, 8], [3, 3, 4, 3], "untrimmed", True),
        ([7, 8, 7, 3], [3, 3, 4, 4], "untrimmed", False),  # lost once in four
        ([3, 3, 4, 3], [7, 8, 7, 8], "untrimmed", False),
        ([5, 5, 5, 5], [5, 6, 5, 4], "trimmed", True),
        ([7, 8, 7, 8], [3, 3, 4, 3], "trimmed", False),
    ],
)
def test_the_rule(hico: list[int], far: list[int], design: str, met: bool) -> None:
    right = {("hico", seed): count for seed, count in enumerate(hico, start=1)}
    right |= {("simclr-far-3", seed): count for seed, count in enumerate(far, start=1)}
    rows = rows_of({**right, ("hico", 0): 0, ("simclr-far-3", 0): 10}, design=design)  # seed 0 does not count
    (verdict,) = real_verdicts(rows)
    assert verdict.met == met
    assert verdict.difference.num_seeds == 4
    gap = difference(of_design(rows, "ego_gest", design), "hico", "simclr-far-3")
    assert gap is not None
    assert gap.value == pytest.approx((sum(hico) - sum(far)) / 40)


def test_differences_are_over_seeds_that_both_have() -> None:
    rows = rows_of({("hico", 1): 8, ("hico", 2): 0, ("untrained", 1): 5, ("untrained", 3): 0})
    found = difference(rows, "hico", "untrained")
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert difference(rows, "hico", "pixels") is None
    assert accuracy(rows[rows["arm"] == "hico"]) == pytest.approx((0.4, 0.0, 0.8), abs=0.2)
    assert accuracy(rows[rows["arm"] == "pixels"]) is None


def test_places_with_several_labels() -> None:
    rows = rows_of({("hico", 1): 5})
    rows.loc[rows["group"] == "3", "label"] = "0"
    assert set(with_several_labels(rows)["group"]) == {"0", "1", "2", "4"}


def test_a_place_is_found_by_the_nearest_other_clip() -> None:
    rows = [np.array([row], dtype=np.float32) for row in ([1, 0], [3, 0.1], [0, 1], [0.9, 1])]
    assert finds_its_place(rows, ["a", "a", "b", "a"]).tolist() == [True, True, False, False]


def test_the_page_has_a_place_for_each_table() -> None:
    rows = rows_of({(arm, seed): 5 for arm in ("hico", "simclr-far-3") for seed in (1, 2)})
    rows = pd.concat([rows.assign(probe=probe) for probe in REAL_PROBES])
    page, appendix = pages(rows).values()
    assert "| untrimmed | +0.0 ± 0.0, 0 of 2 | **not met** |" in page
    assert re.search(r"\| hico \| \d+\.\d \(.*?\) \|  \| \d+\.\d \(.*?\) \|  \|", page)
    assert appendix.count("Not run.") == 9  # trimmed, all of fight_surv, and S3D-G


@pytest.mark.slow
def test_the_pages_are_what_the_script_writes() -> None:
    written = pages(pd.read_parquet(DOCS / "measurements" / "real.parquet"))
    assert {page: page.read_text() for page in written} == written
