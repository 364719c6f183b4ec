"""Features stand where ActionFormer and OpenTAD put them, to a millisecond; annotations fit what is there."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_videos import numbered_video

from hico_core.base.choices import Align, Tail, Toolkit
from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.clips.probe import frame_times
from hico_core.corpus.sources.finding import find_sources
from hico_core.encoding.windows import Grid
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.extract import NPY_FILES, ExtractionPolicy, Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of_files
from hico_core.transfer.extraction.manifest import ManifestRow, manifest_line, read_manifest
from hico_core.transfer.extraction.tad import (
    AMBIGUOUS,
    EMPTY,
    NO_LABEL,
    NO_SEGMENT,
    OUTSIDE,
    actionformer_config,
    centre_seconds,
    feature_grid,
    fit_annotations,
    opentad_config,
    read_annotations,
    write_export,
)
from hico_core.transfer.features import FeatureExtractor

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A steady video of 25 frames a second, one with holes, and an encoder."""
    base = tmp_path_factory.mktemp("tad")
    numbered_video(base / "videos/steady.mp4", seconds=8, fps="25")
    numbered_video(base / "videos/v_holes.mp4", seconds=9, keep="not(between(t,2,4.7))")
    torch.manual_seed(0)
    export_encoder(base / "encoder.safetensors", S3DGTiny())
    return base


def extract(
    base: Path,
    folder: Path,
    *,
    fps: float | None = 15.0,
    stride: int = 16,
    align: Align = "start",
    tail: Tail = "pad",
    files: Files = NPY_FILES,
) -> dict[str, ManifestRow]:
    extract_features(
        jobs_of_files(find_sources([str(base / "videos")])),
        encoder=FeatureExtractor.from_checkpoint(
            base / "encoder.safetensors", fps=fps, stride=stride, align=align, tail=tail, device="cpu"
        ),
        root=folder.parent,
        files=files._replace(folder=folder),
        policy=ExtractionPolicy(workers=0),
    )
    return read_manifest(folder)


def entry(*segments: tuple[float, float, str], subset: str = "training", **more: float | str) -> dict[str, Any]:
    annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"subset": subset, "annotations": annotations, **more}


def opentads_values(text: str) -> dict[str, Any]:
    """A configuration of OpenTAD is a Python file."""
    values: dict[str, Any] = {}
    exec(text, values)
    return values


@pytest.mark.parametrize("toolkit", ["actionformer", "opentad"])
@pytest.mark.parametrize(
    ("fps", "stride", "align"), [(15.0, 16, "start"), (15.0, 4, "start"), (None, 4, "start"), (10.0, 8, "center")]
)
def test_toolkits_put_features_where_they_are(
    base: Path, tmp_path: Path, toolkit: Toolkit, fps: float | None, stride: int, align: Align
) -> None:
    """Each toolkit's own formula, restated, against the times of the frames that were seen."""
    folder = tmp_path / "features"
    manifest = extract(base, folder, fps=fps, stride=stride, align=align)
    grid = feature_grid(manifest, folder, toolkit)
    export = fit_annotations({"steady": entry((1, 2, "a")), "v_holes": entry((0, 8, "b"))}, manifest, origin="x")
    where = {"folder": tmp_path, "features": folder}
    for row in manifest.values():
        said = export.annotations[row.video_id]
        if toolkit == "actionformer":
            values = actionformer_config(grid, export, **where)["dataset"]
            rate = values.get("default_fps", said["fps"])
            found = [(i * values["feat_stride"] + 0.5 * values["num_frames"]) / rate for i in range(row.rows)]
        else:
            values = opentads_values(opentad_config(grid, export, **where))["dataset"]["train"]
            rate = values["fps"] if values["fps"] > 0 else said["frame"] / said["duration"]
            found = [(i * values["feature_stride"] + values["offset_frames"]) / rate for i in range(row.rows)]
        np.testing.assert_allclose(found, row.centre_seconds, atol=1e-3)
        np.testing.assert_allclose(centre_seconds(grid, count=row.rows, fps=row.fps), row.centre_seconds, atol=1e-9)
        assert said["frame"] / said["duration"] == pytest.approx(row.fps, rel=1e-12)
        assert said["duration"] == pytest.approx(row.duration_seconds, abs=0.5 / row.fps + 1e-9)


def test_the_times_are_those_of_the_frames(base: Path, tmp_path: Path) -> None:
    """With holes in the video, window i still covers the seconds that it says."""
    manifest = extract(base, tmp_path / "features", stride=4)
    (row,) = (row for row in manifest.values() if row.video_id == "holes")
    seconds = frame_times(base / "videos/v_holes.mp4")
    assert row.duration_seconds == pytest.approx(seconds[-1], abs=0.2)
    assert row.start_seconds == pytest.approx([i * 4 / 15 for i in range(row.rows)])
    assert row.grid == Grid(fps=15.0, window=16, stride=4)


def test_annotations_fit_what_is_there(base: Path, tmp_path: Path) -> None:
    manifest = extract(base, tmp_path / "features")
    database = {
        "v_holes": entry((1, 2, "jump"), (3, 4, "dive"), (500, 501, "end"), duration=9.0, url="kept"),
        "steady": entry((2, 3, "jump"), subset="validation", duration=60.0),
        "gone": entry((0, 1, "swim")),
        "v_late": entry((0, 1, "swim")),
    }
    export = fit_annotations(database, manifest, origin="x")
    assert export.annotations.keys() == {"holes", "steady"}
    assert export.missing == ["gone", "v_late"]
    assert export.categories == ["dive", "jump"], "as many as the annotations that are left have"
    found = export.annotations["holes"]
    assert [(a["segment"], a["label_id"]) for a in found["annotations"]] == [([1, 2], 1), ([3, 4], 0)]
    assert export.left_out.total() == 1 and found["url"] == "kept"
    assert export.other_durations == ["steady"]
    assert "label_id" not in database["v_holes"]["annotations"][0], "the input stays as it is"
    only_late = fit_annotations({"holes": entry((500, 501, "x")), "steady": entry((0, 1, "x"))}, manifest, origin="x")
    assert only_late.missing == ["holes"] and only_late.annotations.keys() == {"steady"}
    with pytest.raises(HicoError, match="none of its 1 videos has features here; it begins with 'gone'"):
        fit_annotations({"gone": entry()}, manifest, origin="ann.json")
    with pytest.raises(HicoError, match=r"no segment to use \(1 called Ambiguous\)"):
        fit_annotations({"steady": entry((1, 2, "Ambiguous"))}, manifest, origin="ann.json")


@pytest.mark.parametrize(
    ("segment", "label", "becomes"),
    [
        ([1.5, 2], "run", [1.5, 2]),
        ([0, 8], "run", [0, 8]),
        ([7, 8.5], "run", [7, 8]),  # the video has 8 s
        ([6, 1e300], "run", [6, 8]),
        ([6, 10**400], "run", [6, 8]),
        ([-3, 2], "run", [0, 2]),
        ([1, 2], "Ambiguous", AMBIGUOUS),
        ([0, 0], "run", EMPTY),
        ([3, 3.0], "run", EMPTY),
        ([2, 1], "run", EMPTY),
        ([-2, -1], "run", OUTSIDE),
        ([-2, 0], "run", OUTSIDE),
        ([8, 9], "run", OUTSIDE),
        ([10**400, 10**401], "run", OUTSIDE),
        ([math.nan, 2], "run", NO_SEGMENT),
        ([1, math.inf], "run", NO_SEGMENT),
        (["1", "2"], "run", NO_SEGMENT),
        ([True, 2], "run", NO_SEGMENT),
        ([1], "run", NO_SEGMENT),
        (None, "run", NO_SEGMENT),
        ([1, 2], None, NO_LABEL),
        ([1, 2], 3, NO_LABEL),
        ([1, 2], "", NO_LABEL),
        ([1, 2], "two\nlines", NO_LABEL),
        ([1, 2], "\udce9", NO_LABEL),
    ],
)
def test_segments_are_cut_or_left_out_and_counted(base: Path, segment: object, label: object, becomes: object) -> None:
    manifest = made_once(base)
    odd = {"segment": segment, "label": label}
    database = {"steady": {"subset": "training", "annotations": [odd, {"segment": [3, 4], "label": "other"}]}}
    text = json.dumps({"database": database})  # as files have it
    export = fit_annotations(json.loads(text)["database"], manifest, origin="x")
    *fitted, other = export.annotations["steady"]["annotations"]
    assert other["segment"] == [3, 4]
    if isinstance(becomes, str):
        assert fitted == [] and export.left_out == {becomes: 1} and export.num_cut == 0
    else:
        assert fitted[0]["segment"] == becomes and not export.left_out
        assert export.num_cut == (becomes != segment)


def test_an_annotation_that_is_no_object(base: Path) -> None:
    manifest = made_once(base)
    database = {"steady": {"subset": "training", "annotations": ["run", None, {"segment": [3, 4], "label": "a"}]}}
    assert fit_annotations(database, manifest, origin="x").left_out == {NO_LABEL: 2}


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["v_0pABCDEFG"], ["v_0pABCDEFG"], {"v_0pABCDEFG": "v_0pABCDEFG"}),
        (["0pABCDEFG"], ["v_0pABCDEFG"], {"0pABCDEFG": "v_0pABCDEFG"}),
        (["x"], ["v_x", "x"], {"x": "x"}),  # whatever comes first
        (["x"], ["x", "v_x"], {"x": "x"}),
        (["x", "v_x"], ["x", "v_x"], {"x": "x", "v_x": "v_x"}),
        (["x", "v_x"], ["v_x"], {"v_x": "v_x"}),
    ],
)
def test_an_exact_name_comes_before_one_without_v(
    base: Path,
    ids: list[str],
    names: list[str],
    expected: dict[str, str],
) -> None:
    row = made_once(base)["steady.npy"]
    manifest = {f"{name}.npy": row.model_copy(update={"video_id": name}) for name in ids}
    export = fit_annotations({name: entry((1, 2, "a"), url=name) for name in names}, manifest, origin="x")
    assert {video_id: found["url"] for video_id, found in export.annotations.items()} == expected
    assert export.missing == sorted(set(names) - set(expected.values()))


def made_once(base: Path) -> dict[str, ManifestRow]:
    folder = base / "once"
    return read_manifest(folder) if folder.exists() else extract(base, folder)


def as_an_older_hico_named_it(folder: Path, rows: dict[str, ManifestRow]) -> dict[str, ManifestRow]:
    """The same features in files with a suffix, as there was an option for it."""
    renamed = {}
    for name, row in rows.items():
        of_old = f"{name.removesuffix('.npy')}_s3d.npy"
        (folder / name).rename(folder / of_old)
        renamed[of_old] = row.model_copy(update={"file": of_old, "suffix": "_s3d"})
    (folder / "manifest.jsonl").write_bytes(b"".join(manifest_line(row, folder) for row in renamed.values()))
    return read_manifest(folder)


@pytest.mark.parametrize("toolkit", ["actionformer", "opentad"])
def test_what_is_written(base: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    folder = tmp_path / "features"
    manifest = as_an_older_hico_named_it(folder, extract(base, folder, files=Files(prefix="v_")))
    database = {"holes": entry((1, 2, "jump")), "steady": entry((1, 2, "run"), subset="validation"), "gone": entry()}
    export = fit_annotations(database, manifest, origin="x")
    grid = feature_grid(manifest, folder, toolkit)
    written = write_export(toolkit, export, grid, folder=tmp_path / "tad", features=folder)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "tad").iterdir()}
    assert json.loads(written[0].read_text())["database"] == export.annotations
    assert written[1].read_text() == "gone\n" and written[2].read_text() == "jump\nrun\n"
    if toolkit == "actionformer":
        config = yaml.safe_load(written[3].read_text())
        values = config["dataset"]
        assert (config["train_split"], config["val_split"]) == (["training"], ["validation"])
        paths = [
            Path(values["feat_folder"]) / f"{values['file_prefix']}{i}{values['file_ext']}" for i in export.annotations
        ]
        assert values["num_classes"] == 2 and values["input_dim"] == 128
    else:
        config = opentads_values(written[3].read_text())
        load = config["load_feats"]
        assert config["dataset"]["val"]["subset_name"] == "validation"
        paths = [
            Path(config["data_path"]) / f"{load['prefix']}{i}{load['suffix']}.{load['feat_format']}"
            for i in export.annotations
        ]
        assert Path(config["block_list"]).read_text() == "gone\n"
    assert all(np.load(path).shape[1] == 128 for path in paths)


@pytest.mark.parametrize(
    ("settings", "toolkit", "problem"),
    [
        ({"tail": "shift"}, "opentad", "shifted off the grid; extract with --tail pad or drop"),
        (
            {"files": Files(file_format="npz")},
            "actionformer",
            "actionformer does not read .npz; extract with --format npy",
        ),
        ({"files": Files(file_format="parquet")}, "opentad", "extract with --format npy or npz or pt"),
    ],
)
def test_features_that_do_not_fit(
    base: Path, tmp_path: Path, settings: dict[str, Any], toolkit: Toolkit, problem: str
) -> None:
    manifest = extract(base, tmp_path / "features", **settings)
    with pytest.raises(HicoError, match=problem):
        feature_grid(manifest, tmp_path / "features", toolkit)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not a JSON file of annotations"),
        ("[]", 'has no "database" of videos'),
        ('{"database": {}}', 'has no "database" of videos'),
        ('{"database": {"a": {}}}', "the entry of 'a' names no subset"),
        ('{"database": {"a": {"subset": "x", "annotations": null}}}', "has annotations that are no list"),
        ('{"database": {"a": []}}', "names no subset"),
        ('{"database": {"a\\nb": {"subset": "x"}}}', "has a name that is not plain text"),
    ],
)
def test_annotations_that_are_none(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(HicoError, match=problem):
        read_annotations(tmp_path / "a.json")
    with pytest.raises(HicoError, match=r"none\.json: cannot be read"):
        read_annotations(tmp_path / "none.json")


def test_a_bad_entry_costs_its_video_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"database": {"a": {}, "b": {"subset": "x"}}}')
    assert read_annotations(tmp_path / "a.json") == ({"b": {"subset": "x"}}, {"a": "names no subset"})


def test_names_that_a_list_cannot_hold_are_refused_before_anything_is_written(base: Path, tmp_path: Path) -> None:
    """Lists have a name a line, which the toolkits strip."""
    manifest = made_once(base)
    grid = feature_grid(manifest, base / "once", "opentad")
    for name in ("go\nne", " gone", "gone\u2028"):
        export = fit_annotations({"steady": entry((1, 2, "jump")), name: entry()}, manifest, origin="x")
        with pytest.raises(HicoError, match="a name that a list of one a line cannot hold"):
            write_export("opentad", export, grid, folder=tmp_path / "tad", features=base / "once")
    assert not (tmp_path / "tad").exists()


@pytest.mark.parametrize("label", ["jump 'n' run", 'say "hi"', "a: b # c", "${x}", "跳", "{0}", "\\n"])
def test_odd_names_are_read_back_as_they_are(base: Path, tmp_path: Path, label: str) -> None:
    manifest = made_once(base)
    export = fit_annotations({"steady": entry((1, 2, label))}, manifest, origin="x")
    for toolkit in ("actionformer", "opentad"):
        folder = tmp_path / f"{toolkit} {label.replace('/', '')}"
        grid = feature_grid(manifest, base / "once", toolkit)
        annotations, _, categories, snippet = write_export(toolkit, export, grid, folder=folder, features=base / "once")
        (segment,) = json.loads(annotations.read_text())["database"]["steady"]["annotations"]
        assert segment["label"] == label and categories.read_text(encoding="utf-8") == label + "\n"
        text = snippet.read_text(encoding="utf-8")
        if toolkit == "actionformer":
            assert yaml.safe_load(text)["dataset"]["json_file"] == str(annotations)
        else:
            names: dict[str, object] = {}
            exec(text, {}, names)
            assert names["annotation_path"] == str(annotations) and names["class_map"] == str(categories)
