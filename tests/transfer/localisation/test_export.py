"""What is written, read as ActionFormer and OpenTAD read it: their formulas restated, on the same files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_features import made_features

from hico_core.base.choices import DetectionPreset, Toolkit
from hico_core.base.errors import HicoError, UsageError
from hico_core.encoding.windows import Grid
from hico_core.transfer.extraction.manifest import ManifestRow, read_manifest
from hico_core.transfer.extraction.presets import PRESETS
from hico_core.transfer.localisation.export import Exported, Wanted, export_features
from hico_core.transfer.localisation.opentad import base_files
from hico_core.transfer.localisation.recipes import RECIPES

# The last one has a row of which OpenTAD would know nothing if its frames were rounded down.
SECONDS = {"a": 12.0, "b": 31.7, "c": 14.967}
SEGMENTS = {"a": [(1.0, 4.5, 0), (6.2, 11.0, 1)], "b": [(0.0, 30.0, 1)], "c": [(2.5, 14.9, 0), (3.0, 5.0, 1)]}
LABELS = ["jump", "跳 'n' \"run\""]
OPENTAD_S_BASE = """
dataset = {part: dict(type="Thumos", fps=15, class_agnostic=True, block_list="none.txt", window_size=256, pipeline=[1])
           for part in ("train", "val", "test")}
evaluation = dict(type="mAP", subset="x", ground_truth_filename="x", tiou_thresholds=[0], blocked_videos="blocked.json")
"""


def grid_of(preset: DetectionPreset, **changes: Any) -> Grid:  # noqa: ANN401
    windows = PRESETS[preset]
    return replace(Grid(fps=windows.fps, window=windows.window, stride=windows.stride), **changes)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of OpenTAD as the configuration stands on."""
    for preset in RECIPES:
        for sliding in (False, True):
            dataset, model = base_files(tmp_path / "Open TAD", preset, sliding=sliding)
            for path, text in ((dataset, OPENTAD_S_BASE), (model, "model = dict(type='ActionFormer')\n")):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return tmp_path / "Open TAD"


def segments_file(path: Path) -> Path:
    rows = [
        {"video": video, "start": start, "end": end, "label": LABELS[number], "subset": subset}
        for video, subset in (("a", "Train"), ("b", "Train"), ("c", "Test"))
        for start, end, number in SEGMENTS[video]
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def wanting(toolkit: Toolkit, **changes: Any) -> Wanted:  # noqa: ANN401
    """What the command asks for where nothing but the toolkit is said, and changes of that."""
    plain = Wanted(toolkit=toolkit, preset=None, train_subset=None, test_subset=None, sliding=False, checkout=None)
    return replace(plain, **changes)


def export(folder: Path, grid: Grid, wanted: Wanted, *, prefix: str = "") -> Exported:
    made_features(folder / "features", SECONDS, grid, prefix=prefix)
    segments = segments_file(folder / "segments.jsonl")
    return export_features(segments, folder / "features", wanted=wanted, folder=folder / "tad $1")


def merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a configuration that stands on another one holds: dictionaries are joined, all else is replaced."""
    joined = {
        key: merged(base[key], value) if isinstance(value, dict) and key in base else value
        for key, value in own.items()
    }
    return {**base, **joined}


def read_python(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    exec(path.read_text(encoding="utf-8"), {}, values)
    for base in values.pop("_base_", []):
        values = merged(read_python(Path(base)), values)
    return values


def annotations_of(exported: Exported) -> dict[str, Any]:
    database: dict[str, Any] = json.loads(exported.files[0].read_text())["database"]
    return database


@pytest.mark.parametrize("prefix", ["v_", ""])
@pytest.mark.parametrize(
    "grid",
    [grid_of("anet"), grid_of("thumos"), grid_of("anet", window=15), grid_of("thumos", align="center", tail="drop")],
)
def test_actionformer(tmp_path: Path, grid: Grid, prefix: str) -> None:
    exported = export(tmp_path, grid, wanting("actionformer", preset="thumos"), prefix=prefix)
    config = yaml.safe_load(exported.files[-1].read_text(encoding="utf-8"))
    said, database = config["dataset"], annotations_of(exported)
    assert config["train_split"] == ["training"] and config["val_split"] == ["validation"]
    assert {v: entry["subset"] for v, entry in database.items()} == {
        "a": "training",
        "b": "training",
        "c": "validation",
    }
    assert Path(said["json_file"]) == exported.files[0]
    for row in read_manifest(tmp_path / "features").values():
        entry = database[row.video_id]
        features = np.load(Path(said["feat_folder"]) / f"{said['file_prefix'] or ''}{row.video_id}{said['file_ext']}")
        assert features.shape == (row.rows, said["input_dim"])
        rate, stride = said["default_fps"] or entry["fps"], said["feat_stride"]
        offset = 0.5 * said["num_frames"] / stride

        def seconds(place: float, rate: float = rate, stride: int = stride) -> float:
            return float((place * stride + 0.5 * said["num_frames"]) / rate)

        np.testing.assert_allclose([seconds(i) for i in range(row.rows)], row.centre_seconds, atol=1e-9)
        kept = 0
        for annotation in entry["annotations"]:
            start, end = (time * rate / stride - offset for time in annotation["segment"])
            kept += (min(end, row.rows + offset) - start) / (end - start) >= said["trunc_thresh"]
            assert (seconds(start), seconds(end)) == pytest.approx(tuple(annotation["segment"]), abs=1e-9)
        assert kept == len(SEGMENTS[row.video_id]), "it stops at a video to train on of which it keeps no segment"
    labels = {a["label"]: a["label_id"] for entry in database.values() for a in entry["annotations"]}
    assert said["num_classes"] == len(labels) == 2 and sorted(labels.values()) == [0, 1]
    assert config["loader"]["batch_size"] == 1 and config["output_folder"] == str(tmp_path / "tad $1/runs")
    assert max(row.rows for row in read_manifest(tmp_path / "features").values()) <= said["max_seq_len"]


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize(("preset", "prefix"), [("anet", "v_"), ("hacs", ""), ("thumos", "")])
def test_opentad(tmp_path: Path, checkout: Path, preset: DetectionPreset, prefix: str, sliding: bool) -> None:
    wanted = wanting("opentad", checkout=checkout, sliding=sliding)
    exported = export(tmp_path, grid_of(preset), wanted, prefix=prefix)
    config, database = read_python(exported.files[-1]), annotations_of(exported)
    manifest = read_manifest(tmp_path / "features")
    for part, subset in (("train", "training"), ("val", "validation"), ("test", "validation")):
        said = config["dataset"][part]
        assert said["subset_name"] == [subset] and not said["class_agnostic"] and said["block_list"] is None
        assert Path(said["class_map"]).read_text(encoding="utf-8").splitlines() == LABELS
        load, *steps = said["pipeline"]
        assert (load["type"], steps[-1]["type"]) == ("LoadFeats", "Collect")
        for row in manifest.values():
            name = f"{load['prefix']}{row.video_id}{load['suffix']}.{load['feat_format']}"
            assert np.load(Path(said["data_path"]) / name).shape[1] == config["model"]["projection"]["in_channels"]
            assert_times_of_opentad(said, database[row.video_id], row)
            if sliding:
                assert rows_in_windows(said, database[row.video_id]) >= set(range(row.rows))
    evaluation = config["evaluation"]
    assert evaluation["ground_truth_filename"] == str(exported.files[0]) and evaluation["subset"] == "validation"
    assert evaluation["blocked_videos"] is None and evaluation["tiou_thresholds"][0] in (0.3, 0.5)
    model, rows = config["model"], config["dataset"]["train"]["pipeline"][2].get("trunc_len")
    assert model["type"] == "ActionFormer" and model["rpn_head"]["num_classes"] == 2
    assert model["projection"]["max_seq_len"] == (config["dataset"]["train"]["window_size"] if sliding else rows)
    assert config["work_dir"] == str(tmp_path / "tad $1/runs")


def assert_times_of_opentad(said: dict[str, Any], entry: dict[str, Any], row: ManifestRow) -> None:
    stride, offset = int(said["feature_stride"] * said["sample_stride"]), int(said["offset_frames"])
    rate = said["fps"] if said["fps"] > 0 else entry["frame"] / entry["duration"]
    found = [(i * stride + offset) / rate for i in range(row.rows)]
    np.testing.assert_allclose(found, row.centre_seconds, atol=1e-9)
    for annotation in entry["annotations"]:
        places = [(time * rate - offset) / stride for time in annotation["segment"]]
        assert [(place * stride + offset) / rate for place in places] == pytest.approx(annotation["segment"], abs=1e-9)


def rows_in_windows(said: dict[str, Any], entry: dict[str, Any]) -> set[int]:
    """Rows that some window of OpenTAD has."""
    stride, size = said["feature_stride"], said["window_size"]
    step = int(size * (1 - said["window_overlap_ratio"]))
    num_rows = math.ceil((int(entry["duration"] * said["fps"]) if said["fps"] > 0 else entry["frame"]) / stride)
    found: set[int] = set()
    for number in range(max(1, num_rows // step)):
        end = number * step + size
        found |= set(range(max(0, min(end, num_rows) - size), min(end, num_rows)))
        if end > num_rows:
            break
    return found


@pytest.mark.parametrize("num_rows", [1, 287, 288, 289, 300, 431, 432, 433, 1000])
def test_sliding_windows_leave_no_row_out(num_rows: int) -> None:
    """With OpenTAD's own overlap of a quarter they would: of 300 rows, they show the first 288."""
    said = {"feature_stride": 16, "window_size": 288, "window_overlap_ratio": 0.5, "fps": -1}
    entry = {"frame": num_rows * 16, "duration": 1.0}
    assert rows_in_windows(said, entry) == set(range(num_rows))
    assert num_rows != 300 or len(rows_in_windows({**said, "window_overlap_ratio": 0.25}, entry)) == 288


def test_lines_to_type(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "1").mkdir()
    exported = export(tmp_path / "1", grid_of("thumos"), wanting("opentad", checkout=checkout))
    folder = f"'{tmp_path}/1/tad $1"
    start = "torchrun --nnodes=1 --nproc_per_node=1 --rdzv_backend=c10d --rdzv_endpoint=localhost:0"
    assert exported.commands == [
        f"cd '{checkout}'",
        f"{start} tools/train.py {folder}/opentad.py'",
        f"{start} tools/test.py {folder}/opentad.py' --checkpoint {folder}/runs/gpu1_id0/checkpoint/epoch_999.pth'",
    ]
    (tmp_path / "2").mkdir()
    exported = export(tmp_path / "2", grid_of("anet"), wanting("actionformer"), prefix="v_")
    folder = f"'{tmp_path}/2/tad $1"
    assert exported.commands == [
        f"python train.py {folder}/actionformer.yaml' --output hico --ckpt-freq 200",
        f"python eval.py {folder}/actionformer.yaml' {folder}/runs/actionformer_hico'",
    ]


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"toolkit": "opentad"}, UsageError, "--for opentad needs --checkout, the folder of OpenTAD"),
        (
            {"toolkit": "opentad", "checkout": Path("none")},
            UsageError,
            "--checkout none: is not a checkout of OpenTAD; it has",
        ),
        ({"sliding": True}, UsageError, "--sliding only works with --for opentad"),
        (
            {"train_subset": "Val"},
            UsageError,
            r"--train-subset Val: no video .* there are 'Test' \(1 video\), 'Train' \(2",
        ),
        ({"train_subset": "Test"}, UsageError, "which to test on"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(
    tmp_path: Path, changes: dict[str, Any], error: type[HicoError], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        export(tmp_path, grid_of("thumos"), replace(wanting("actionformer"), **changes))
    assert not (tmp_path / "tad $1").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "gone,0,1,run,train\n",
            r"has 1 video, none with features; its first video is 'gone', the first with features is 'a'",
        ),
        ("a,0,9000,run,train\nb,0,20000,run,test\n", "these look like milliseconds; divide them by 1000"),
        ("a,0,270,run,train\nb,0,600,run,test\n", "these look like frame numbers; divide them by the frame rate"),
        ("a,0,99,run,train\na,0,1,run,train\nb,0,2e7,run,test\n", "check that the videos match"),
        (
            "a,12,12.5,run,train\na,12.2,12.7,run,train\nb,1,2,run,test\n",
            "no segment of subset 'train' lies within its video",
        ),
        ("a,1,2,run,train\na,3,4,run,train\nb,90,91,run,test\n", "no segment of subset 'test' lies within its video"),
        ("a,0,1,Ambiguous,train\nb,1,2,run,test\n", "which to test on: there is 'test'"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path: Path, text: str, problem: str) -> None:
    made_features(tmp_path / "features", SECONDS, grid_of("thumos"))
    (tmp_path / "s.csv").write_text("video,start,end,label,subset\n" + text)
    with pytest.raises(HicoError, match=problem):
        export_features(
            tmp_path / "s.csv", tmp_path / "features", wanted=wanting("actionformer"), folder=tmp_path / "tad"
        )
    assert not (tmp_path / "tad").exists()
