"""What a search finds is what a loop over all pairs finds; its measures are those of scikit-learn."""

import json
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_videos import numbered_video
from PIL import Image
from sklearn.metrics import average_precision_score

from hico_core.base.choices import RetrievalProtocol
from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.sources.finding import find_sources
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.evaluation import retrieval as module
from hico_core.transfer.evaluation.labelled import labelled_of_list, rows_from_folder
from hico_core.transfer.evaluation.match_sheet import are_alike, write_sheet
from hico_core.transfer.evaluation.probe import LabelledRows, video_means
from hico_core.transfer.evaluation.retrieval import (
    FoundMoment,
    average_precision,
    chance_of_recall,
    extractor_of,
    retrieval,
    search,
)
from hico_core.transfer.extraction.extract import ExtractionPolicy, Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of_files
from hico_core.transfer.extraction.manifest import load_features, read_manifest
from hico_core.transfer.features import FeatureExtractor


def rows(seed: int, videos: int, *, first: int = 0) -> LabelledRows:
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(videos), 3)
    features = rng.normal(size=(len(numbers), 8)) + np.eye(8)[numbers % 4] * 1.5 + 0.5
    return LabelledRows(features.astype(np.float32), numbers % 4, numbers + first)


@pytest.mark.parametrize("protocol", ["video", "clip", "coclr"])
def test_measures_are_those_of_a_loop(protocol: RetrievalProtocol) -> None:
    queries, gallery = rows(1, 13), rows(2, 40, first=100)
    found = retrieval(queries, gallery, protocol=protocol, ranks=(1, 5, 20))
    left, right = (side if protocol == "clip" else video_means(side) for side in (queries, gallery))
    a, b = left.features, right.features
    if protocol == "coclr":
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    unit = b / np.linalg.norm(b, axis=1, keepdims=True)
    recalls: dict[int, list[bool]] = {1: [], 5: [], 20: []}
    precisions = []
    for row, label in zip(a, left.labels, strict=True):
        similarity = unit @ (row / np.linalg.norm(row))
        ranked = right.labels[np.argsort(-similarity)]
        for k, hits in recalls.items():
            hits.append(bool((ranked[:k] == label).any()))
        precisions.append(average_precision_score(right.labels == label, similarity))
    assert found.recall == {k: pytest.approx(np.mean(hits)) for k, hits in recalls.items()}
    assert found.mean_average_precision == pytest.approx(np.mean(precisions))
    assert (found.protocol, found.num_queries, found.gallery_size) == (protocol, len(a), len(b))
    quick = retrieval(queries, gallery, protocol=protocol, ranks=(1, 5, 20), mean_average_precision=False)
    assert quick.recall == found.recall and quick.mean_average_precision is None


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_chance_is_the_mean_over_all_rankings(k: int) -> None:
    queries, gallery = np.array([0, 1, 1, 3]), np.array([0, 0, 1, 2, 2, 2])
    hits = [(gallery[list(ranking[:k])] == query).any() for query in queries for ranking in permutations(range(6))]
    assert chance_of_recall(queries, gallery, k=k) == pytest.approx(np.mean(hits))


def test_ranks_beyond_the_gallery_are_left_out() -> None:
    assert list(retrieval(rows(1, 4), rows(2, 6, first=100), protocol="video").recall) == [1, 5]


@pytest.mark.parametrize(
    ("similarities", "names", "alike"),
    [([0.9999, 0.9998], "ab", True), ([0.9999, 0.99], "ab", False), ([1.0, 1.0], "aa", False), ([], "", False)],
)
def test_when_all_matches_are_alike(similarities: list[float], names: str, alike: bool) -> None:
    moments = [
        FoundMoment(video_id=name, start_seconds=0, end_seconds=1, similarity=value, query_seconds=0, source="x")
        for name, value in zip(names, similarities, strict=True)
    ]
    assert are_alike(moments) == alike


def test_average_precision_by_hand() -> None:
    relevant = torch.tensor([[True, False, True], [False, False, True], [False, False, False]])
    assert average_precision(relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 3, 0.0])


@pytest.mark.parametrize(
    ("queries", "gallery", "problem"),
    [
        (rows(1, 4), rows(1, 4), "queries and gallery share 4 videos, such as 0"),
        (rows(1, 0), rows(1, 4), "needs labelled videos"),
    ],
)
def test_what_cannot_be_measured(queries: LabelledRows, gallery: LabelledRows, problem: str) -> None:
    with pytest.raises(HicoError, match=problem):
        retrieval(queries, gallery, protocol="video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of five videos of 3 to 7 s, in overlapping windows."""
    base = tmp_path_factory.mktemp("gallery")
    for number in range(5):
        numbered_video(base / f"videos/v_{number}.mp4", seconds=3 + number)
    torch.manual_seed(0)
    export_encoder(base / "encoder.safetensors", S3DGTiny())
    extractor = FeatureExtractor.from_checkpoint(base / "encoder.safetensors", stride=8, device="cpu")
    extract_features(
        jobs_of_files(find_sources([str(base / "videos")])),
        encoder=extractor,
        root=base,
        files=Files(base / "features"),
        policy=ExtractionPolicy(workers=0),
    )
    return base / "features"


@pytest.mark.videos
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_a_search_finds_what_a_loop_finds(folder: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of the gallery is read at once."""
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", at_once)
    manifest = list(read_manifest(folder).values())
    table = load_features(folder)
    queries = table.array[:3] + 0.01
    found = search(queries, np.array([0.0, 1.0, 2.0]), folder, manifest, top=6, excluded=frozenset({"2"}))
    units = table.array / np.linalg.norm(table.array, axis=1, keepdims=True)
    similarity = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ units.T
    best = similarity.max(axis=0)
    best[table.rows["video_id"] == "2"] = -2
    order = np.argsort(-best, kind="stable")[:6]
    assert [match.similarity for match in found] == pytest.approx(best[order].tolist(), abs=1e-6)
    assert {(m.video_id, m.start_seconds) for m in found} == {
        (table.rows["video_id"][place], table.rows["start_seconds"][place]) for place in order.tolist()
    }
    for match in found:
        (place,) = np.flatnonzero(
            (table.rows["video_id"] == match.video_id) & (table.rows["start_seconds"] == match.start_seconds)
        )
        assert match.query_seconds == similarity[:, place].argmax()


@pytest.mark.videos
@pytest.mark.parametrize("at_once", [1, 10_000])
def test_a_search_finds_the_best_moment_of_each_video(
    folder: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", at_once)
    manifest = list(read_manifest(folder).values())
    queries, starts = load_features(folder).array[:3] + 0.01, np.array([0.0, 1.0, 2.0])
    everything = search(queries, starts, folder, manifest, top=1000)
    best = [m for place, m in enumerate(everything) if m.video_id not in {o.video_id for o in everything[:place]}]
    assert search(queries, starts, folder, manifest, top=1000, one_per_video=True) == best
    two = search(queries, starts, folder, manifest, top=2, one_per_video=True)  # some videos are equally good
    assert [match.similarity for match in two] == [match.similarity for match in best[:2]]
    assert two[0].video_id != two[1].video_id


@pytest.mark.videos
def test_a_query_is_looked_at_as_the_gallery_was(folder: Path, tmp_path: Path) -> None:
    row = next(row for row in read_manifest(folder).values() if row.video_id == "3")
    extractor = extractor_of(row, encoder=None, device="cpu")
    np.testing.assert_allclose(extractor.extract(row.source).array, np.load(folder / row.file), rtol=1e-4, atol=1e-6)
    torch.manual_seed(1)
    export_encoder(tmp_path / "other.safetensors", S3DGTiny())
    with pytest.raises(HicoError, match="is not the encoder of these features"):
        extractor_of(row, encoder=str(tmp_path / "other.safetensors"), device="cpu")
    with pytest.raises(HicoError, match="is missing; name it with --encoder"):
        extractor_of(row.model_copy(update={"checkpoint": str(tmp_path / "none.pt")}), encoder=None, device="cpu")


@pytest.mark.videos
def test_features_of_another_width(folder: Path) -> None:
    with pytest.raises(HicoError, match="has 128 numbers per row, the query has 4"):
        search(np.ones((1, 4), np.float32), np.zeros(1), folder, list(read_manifest(folder).values()), top=1)


@pytest.mark.videos
def test_sheets_show_the_frames_of_both(folder: Path, tmp_path: Path) -> None:
    manifest = list(read_manifest(folder).values())
    source = next(row.source for row in manifest if row.video_id == "1")
    matches = [
        FoundMoment(
            video_id=name, start_seconds=1.0, end_seconds=2.0, similarity=0.5, query_seconds=0.5, source=str(path)
        )
        for name, path in (("1", source), ("<b>gone", tmp_path / "gone.mp4"))
    ]
    write_sheet(tmp_path / "s.png", Path(source), matches, window_seconds=1.0)
    with Image.open(tmp_path / "s.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None and (128, 128, 128) in {colour for _, colour in colours}, "of the video that is gone"
    write_sheet(tmp_path / "s.html", Path(source), matches, window_seconds=1.0)
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 12
    assert "<b>gone" not in page and "&lt;b&gt;gone" in page
    assert "http" not in page
    assert "width=device-width" in page and "nearly identical" not in page
    write_sheet(tmp_path / "s.html", Path(source), [replace(m, similarity=1.0) for m in matches], window_seconds=1.0)
    assert "nearly identical to the query" in (tmp_path / "s.html").read_text()


def test_a_sheet_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    write_sheet(tmp_path / "s.html", tmp_path / "q\udcff.mp4", [], window_seconds=1.0)
    assert r"<h1>Moments like those of q\udcff.mp4</h1>" in (tmp_path / "s.html").read_text()


def test_a_result_can_be_written_as_json() -> None:
    found: dict[str, Any] = asdict(retrieval(rows(1, 4), rows(2, 8, first=50), protocol="clip"))
    assert json.loads(json.dumps(found))["recall"]["1"] == found["recall"][1]


@pytest.mark.videos
def test_means_are_taken_file_by_file(folder: Path) -> None:
    """What is measured on videos needs no more of them in memory than their means."""
    manifest = read_manifest(folder)
    sources = find_sources([str(folder.parent / "videos")])
    videos = labelled_of_list([replace(source, label=number % 2) for number, source in enumerate(sources)])
    whole = rows_from_folder(folder, manifest, videos)
    means = rows_from_folder(folder, manifest, videos, means=True)
    assert len(whole.labels) > len(means.labels) == 5
    expected = video_means(whole)
    np.testing.assert_allclose(means.features, expected.features, rtol=1e-6)
    assert means.labels.tolist() == expected.labels.tolist() == [0, 1, 0, 1, 0]
