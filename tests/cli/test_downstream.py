"""From an encoder to results, by the commands; and what goes wrong on the way."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Done, assert_one_line, hico, hico_process
from made_videos import numbered_video

from hico_core.checkpoints.content import export_encoder
from hico_core.encoders.trained import hico_model
from hico_core.report.results import read_results
from hico_core.transfer.extraction.manifest import load_features

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled videos, two of them to test on, an encoder, and features of all."""
    root = tmp_path_factory.mktemp("downstream")
    for number in range(6):
        numbered_video(root / f"videos/{number}.mp4", seconds=2 + number % 3)
    for subset, numbers in (("train", range(4)), ("test", (4, 5))):
        (root / f"{subset}.txt").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in numbers))
        listed = ("--list", root / f"{subset}.txt", "--data-root", root / "videos", "--subset", subset)
        assert hico("index", *listed, root=root).returncode == 0
    torch.manual_seed(0)
    model = hico_model("s3dg-tiny")
    (root / "runs/made/export").mkdir(parents=True)
    export_encoder(root / "runs/made/export/encoder.safetensors", model.backbone)
    assert hico("extract-features", "--workers", "0", root=root).returncode == 0
    return root


def extract(root: Path, *options: str | Path) -> Done:
    return hico("extract-features", "--workers", "0", *options, root=root)


def test_unchanged_videos_have_no_speed(root: Path) -> None:
    """Nothing was encoded, so there is nothing to say about it."""
    done = extract(root)
    assert "unchanged, " in done.stderr and "rows/s" not in done.stderr


def test_the_newest_of_several_runs_is_named(root: Path, tmp_path: Path) -> None:
    """Whose encoder is used without --encoder, and how many it was chosen from."""
    for name in ("one", "two"):
        shutil.copytree(root / "runs/made", tmp_path / "runs" / name)
    os.utime(tmp_path / "runs/one/export/encoder.safetensors")
    said = f"hico: using the encoder of {tmp_path}/runs/one, the newest of 2 runs; choose with --encoder\n"
    done = hico("extract-features", root / "videos/0.mp4", "--dry-run", "--workers", "0", root=tmp_path)
    assert (done.returncode, done.stderr) == (0, said)
    (tmp_path / "runs/begun").mkdir()
    (tmp_path / "runs/begun/config.yaml").touch()
    for options in ([], ["--resume", "--name", "begun"]):  # a run without a checkpoint needs an encoder
        assert hico("finetune", *options, root=tmp_path).stderr.startswith(said)


@pytest.mark.parametrize(
    ("preset", "prefix", "times"),
    [("anet", "v_", 16 / 15), ("hacs", "", 16 / 15), ("thumos", "", 4 / 30), ("clip", "", 16 / 7.5)],
)
def test_presets(root: Path, preset: str, prefix: str, times: float) -> None:
    assert extract(root, root / "videos/5.mp4", "--preset", preset, "--name", preset).returncode == 0
    assert (root / f"features/{preset}/{prefix}5.npy").exists()
    table = load_features(root / "features" / preset)
    np.testing.assert_allclose(np.diff(table.rows["start_seconds"]), times)


@pytest.mark.processes
def test_processes_share_the_videos(root: Path) -> None:
    command = ("extract-features", "--nproc", "2", "--name", "processes", "--format", "hdf5", "--workers", "0")
    done = hico_process(*command, "--json", root=root)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["num_extracted"], result["num_failed"]) == (6, 0)
    assert {json.loads(line)["video"] for line in done.stderr.splitlines()} == set("012345")
    whole, parts = (load_features(root / "features" / name) for name in ("made", "processes"))
    np.testing.assert_allclose(whole.array, parts.array, rtol=1e-4, atol=1e-6)
    assert (root / "features/processes/features.hdf5").exists()
    done = hico_process(*command, root=root)
    assert done.stdout.startswith("0 videos extracted, 6 unchanged, 0 failed"), done.stderr
    (root / "bad.mp4").write_text("no video")
    bad = ("extract-features", root / "bad.mp4", "--nproc", "2", "--name", "bad", "--workers", "0")
    done = hico_process(*bad, root=root)
    assert done.returncode == 3 and "1 failed" in done.stdout and "cannot be opened" in done.stderr
    done = hico_process("extract-features", "--nproc", "2", "--window", "3", root=root)
    assert done.returncode == 2 and "--window 3" in done.stderr
    assert len(done.stderr.splitlines()) == 1, "one line, though two processes found it"


@pytest.mark.processes
def test_main_is_obeyed_by_the_processes_that_it_starts(root: Path) -> None:
    """Also where what it is given is not what this process was started with, and names stand behind `--`."""
    name, extra = "called", ("--workers", "0", "--json")
    done = hico(*("extract-features", "--nproc", "2", "--name", name, *extra, "--", root / "videos/5.mp4"), root=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_extracted"] == 1 and (root / "features/called/5.npy").exists()


def test_a_video_that_fails_is_named_once(root: Path) -> None:
    bad = root / "empty.mp4"
    bad.write_bytes(b"")
    done = extract(root, bad, "--name", "failed")
    assert done.returncode == 3 and done.stderr.splitlines()[0].count(str(bad)) == 1, done.stderr
    lines = [json.loads(line) for line in (root / "failures.jsonl").read_text().splitlines()]
    (line,) = (line for line in lines if line["source"] == bad.name)
    assert line["error"].startswith("cannot be opened as a video (")


def test_a_dry_run_writes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    done = extract(root, "--dry-run", "--json", "--name", "dry")
    plan = json.loads(done.stdout)
    assert plan["num_videos"] == 6 and plan["num_rows"] == len(load_features(root / "features/made").array)
    parts = [json.loads(extract(root, "--dry-run", "--json", "--shard", f"{n}/2").stdout) for n in (1, 2)]
    assert sum(part["num_videos"] for part in parts) == 6 and all(part["num_videos"] for part in parts)
    assert sorted(root.rglob("*")) == before


def test_show_and_check(root: Path) -> None:
    shown = json.loads(hico("features", "show", "made", "--json", root=root).stdout)
    assert shown["num_videos"] == 6 and shown["window"] == 16 and len(shown["videos"]) == 6
    text = hico("features", "show", root / "features/made", root=root).stdout
    assert "5.npy" in text and "encoder: s3dg-tiny, run made" in text and "None" not in text
    assert text.endswith("video_time: 18.0 seconds\nfeatures: 10.0 KB\n")
    assert "6 files in the manifest, 0 problems" in hico("features", "check", "made", root=root).stdout
    assert extract(root, "--name", "harmed").returncode == 0
    (root / "features/harmed/0.npy").write_bytes(b"")
    assert_one_line(hico("features", "check", "harmed", root=root), 3, "0.npy: has 0 bytes, not ")
    assert_one_line(hico("features", "show", "none", root=root), 1, "no features here", "hico extract-features")


def test_probe(root: Path) -> None:
    done = hico("probe", "made", "--shots", "1", "--seeds", "2", "--json", root=root)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["linear"]["values"]) == 2 and result["num_train"] == [4] and result["num_test"] == [2]
    assert json.loads((root / "probes/made.json").read_text())["linear"] == result["linear"]
    assert (result["k"], result["chance"]) == (4, 0.5)
    straight = hico("probe", "--views", "1", "--seeds", "1", "--workers", "0", root=root)
    assert straight.returncode == 0 and "4 training and 2 test videos" in straight.stdout
    assert "of 2 test videos; chance 50.0 %; 95 % interval" in straight.stdout
    assert "k-NN used 4 neighbours instead of 20: only 4 training videos" in straight.stderr
    lists = ("--train", root / "train.txt", "--test", root / "test.txt", "--data-root", root / "videos")
    done = hico("probe", "made", *lists, *lists[:4], "--seeds", "1", root=root)
    assert done.returncode == 0 and "8 training and 4 test videos in 2 splits" in done.stdout


def test_retrieve(root: Path, tmp_path: Path) -> None:
    query = root / "videos/0.mp4"
    chosen = ("--features", "made", "--encoder", "made", "--top", "3", "--json")
    matches = json.loads(hico("retrieve", query, *chosen, root=root).stdout)["matches"]
    assert len(matches) == 3 and all(match["video_id"] != "0" for match in matches)
    everything = ("--features", "made", "--top", "99", "--json", "--include-own", "--every-moment")
    own = [
        m for m in json.loads(hico("retrieve", query, *everything, root=root).stdout)["matches"] if m["video_id"] == "0"
    ]
    assert max(match["similarity"] for match in own) == pytest.approx(1)
    sheet = tmp_path / "sheet.html"
    shown = hico("retrieve", query, "--features", "made", "--top", "99", "--sheet", sheet, root=root)
    assert shown.returncode == 0 and sheet.exists()
    assert "moments found, one per video; --every-moment shows several" in shown.stdout
    done = hico("retrieve", "--protocol", "video", "--features", "made", root=root)
    assert done.stdout.startswith("protocol video: R@1 ") and "2 queries, 4 in the gallery" in done.stdout
    assert done.stdout.splitlines()[-1] == str(root / "retrieval/made-video.json")
    ((features, found),) = read_results(root / "runs/made", root).retrieval
    assert (features, found.num_queries, list(found.recall)) == ("features/made", 2, [1])
    # Lists number the classes that they name, so here each would call its own class 0.
    (tmp_path / "asked.txt").write_text("4.mp4 bow\n")
    (tmp_path / "searched.txt").write_text("0.mp4 jump\n1.mp4 jump\n")
    lists = ("--query-list", tmp_path / "asked.txt", "--gallery-list", tmp_path / "searched.txt")
    done = hico("retrieve", "--protocol", "video", "--features", "made", *lists, root=root)
    assert done.stdout.startswith("protocol video: R@1 0.0 % (chance 0.0 %), mAP"), done.stderr


def test_export_tad(root: Path, tmp_path: Path) -> None:
    """Video 0 has 2 s. What is left out or cut stands in a line each; an entry that cannot be used is a failure."""
    segments = [[0.5, 1], [0, 0], [1, 400], [-1, 1], ["0", "1"]]
    annotations = [{"segment": segment, "label": "a"} for segment in segments]
    annotations.append({"segment": [0, 1], "label": "Ambiguous"})
    database: dict[str, object] = {
        "v_0": {"subset": "training", "annotations": annotations},
        "1": {"subset": "validation", "annotations": annotations[:1]},
        "x": {"subset": "validation"},
    }
    (tmp_path / "ann.json").write_text(json.dumps({"database": database}), encoding="utf-8-sig")
    output = ("--features", "made", "-O", tmp_path / "tad")
    command = ("export-tad", tmp_path / "ann.json", "--for", "actionformer", *output)
    done = hico(*command, root=root)
    assert done.returncode == 0 and done.stderr.splitlines() == [
        "hico: left out 3 segments: 1 called Ambiguous, 1 empty or ending before they start, 1 without a start and "
        "an end in seconds",
        "hico: cut 2 segments to the length of the video",
        "hico: 1 segment overlapping others: all are kept, and where two overlap, the shorter one is learnt",
        f"hico: 1 annotated video without features; see {tmp_path}/tad/missing_files.txt",
    ]
    assert done.stdout.splitlines() == [
        "1 videos of 'training' to train on, 1 of 'validation' to test on, 1 classes; "
        f"{tmp_path}/tad/actionformer.yaml",
        f"python train.py {tmp_path}/tad/actionformer.yaml --output hico --ckpt-freq 400",
        f"python eval.py {tmp_path}/tad/actionformer.yaml {tmp_path}/tad/runs/actionformer_hico",
    ]
    written = json.loads((tmp_path / "tad/annotations.json").read_text())["database"]["0"]
    assert [a["segment"] for a in written["annotations"]] == [[0.5, 1], [1, 2], [0, 1]]
    (tmp_path / "ann.json").write_text(json.dumps({"database": {**database, "2": {"annotations": []}}}))
    done = hico(*command, "--json", root=root)
    assert done.returncode == 3 and "ann.json: entry '2' names no subset; left out" in done.stderr
    told = json.loads(done.stdout)
    assert (told["num_failed"], told["num_segments_left_out"], told["num_segments_cut"]) == (1, 3, 2)
    assert told["segments_left_out"]["called Ambiguous"] == 1 and len(told["commands"]) == 2


def test_features_of_segments(root: Path, tmp_path: Path) -> None:
    """A row a segment, in a folder of their own; what has changed is extracted again; probed and retrieved by row."""
    root = Path(shutil.copytree(root, tmp_path / "root"))
    rows = [f"{video},{start},{start + 1},{'ab'[(video + start) % 2]}" for video in range(6) for start in (0, 1)]
    file = tmp_path / "segments.csv"
    file.write_text("\n".join(["video,start,end,label", *rows, "9,0,1,a"]))
    done = extract(root, "--segments", file)
    assert done.returncode == 0 and done.stdout.startswith("6 videos extracted"), done.stderr
    assert f"hico: {file}: left out the segments of 1 video not among the inputs, such as '9'" in done.stderr
    table = load_features(root / "features/made-segments")
    assert table.array.shape == (12, 128)
    assert table.rows["labels"].tolist() == ["a", "b", "b", "a"] * 3
    assert extract(root, "--segments", file).stdout.startswith("0 videos extracted, 6 unchanged")
    file.write_text(file.read_text().replace("5,1,2,a", "5,1,2,c").replace("4,0,1", "4,0,2"))
    assert extract(root, "--segments", file).stdout.startswith("2 videos extracted, 4 unchanged")
    assert json.loads(extract(root, "--segments", file, "--dry-run", "--json").stdout)["num_rows"] == 12
    probed = hico("probe", "made-segments", "--folds", "2", "--seeds", "1", root=root)
    assert probed.returncode == 0 and "12 training and 12 test segments in 2 splits" in probed.stdout
    compared = hico("compare", "--features", "made-segments", "--folds", "2", "--json", root=root)
    assert compared.returncode == 0 and (root / "compare/made-segments/results.parquet").exists(), compared.stderr
    assert [row["num_test_clips"] for row in json.loads(compared.stdout)["results"]] == [12, 12]
    found = hico("retrieve", "--protocol", "video", "--features", "made-segments", root=root)
    assert found.returncode == 0 and "; 12 queries, 12 in the gallery;" in found.stdout, found.stderr
    refused = hico("export-tad", file, "--for", "actionformer", "--features", "made-segments", root=root)
    assert_one_line(refused, 1, "its rows are segments, not windows on a grid; extract without --segments")
    file.write_text("\n".join(["video,start,end,label", *rows]))
    mixed = extract(root, "--segments", file, "--name", "made")
    assert_one_line(mixed, 1, "has features with rows_of=windows, not segments; use another --name")
    assert_one_line(extract(root, "--per-segment", "2"), 2, "needs --segments FILE")


def test_probe_of_seconds(root: Path, tmp_path: Path) -> None:
    """Videos last 2 to 4 s, and are run in at first; the made encoder stands beside itself."""
    file = tmp_path / "segments.csv"
    file.write_text("\n".join(["video,start,end,label", *(f"{n}.mp4,0,{1 + n % 2},{'ab'[n % 2]}" for n in range(6))]))
    command = ("probe", "made", "--segments", file, "--folds", "2")
    done = hico(*command, "--beside", root / "features/made", root=root)
    assert done.returncode == 0, done.stderr
    assert "Percent of 18 seconds of 6 videos in 6 groups, 50.0 % of them" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == str(root / "probes/made-seconds.json")
    told = json.loads(hico(*command, "--json", root=root).stdout)
    assert [row["features"] for row in told["rows"]] == ["made", "most frequent class", "chance"]
    (found,) = read_results(root / "runs/made", root).localised
    assert [row.features for row in found.rows] == [row["features"] for row in told["rows"]]
    assert found.rows[0].f1["25"]._asdict() == told["rows"][0]["f1"]["25"]
    assert told["seconds_of_classes"] == {"(background)": 9, "a": 3, "b": 6} and told["encoder"].startswith("runs/made")
    lists = ("--train", root / "train.txt", "--test", root / "test.txt")
    assert_one_line(hico(*command, *lists, root=root), 2, "--train: has no effect with --segments", "tests in folds")
    assert_one_line(hico("probe", "--segments", file, root=root), 2, "needs FEATURES of whole videos")
    assert_one_line(hico("probe", "made", "--beside", "made", root=root), 2, "--beside: needs --segments FILE")


def test_bad_lines_of_lists_are_told_and_the_others_are_used(root: Path, tmp_path: Path) -> None:
    bad = "0.mp4 0\n1.mp4 1\n2.mp4 0\n3.mp4 1\n3.mp4 0\nalone.mp4\n"
    (tmp_path / "bad.txt").write_bytes(bad.replace("\n", "\r\n").encode("utf-16"))
    told = [
        f"hico: {root}/videos/3.mp4: is in the list with two labels, 1 and 0; left out",
        f"hico: {tmp_path}/bad.txt, line 6: 'alone.mp4' is not <path> <label>, where the label is a whole number in "
        "UTF-8, as in other lines; left out",
    ]
    lists = ("--train", tmp_path / "bad.txt", "--test", root / "test.txt", "--data-root", root / "videos")
    done = hico("probe", "made", *lists, "--seeds", "1", "-O", tmp_path / "probe.json", root=root)
    assert done.returncode == 3 and "3 training and 2 test videos" in done.stdout
    assert [line for line in done.stderr.splitlines() if line.endswith("left out")] == told
    lists = ("--query-list", root / "test.txt", "--gallery-list", tmp_path / "bad.txt", "--data-root", root / "videos")
    done = hico("retrieve", "--protocol", "video", "--features", "made", *lists, root=root)
    assert done.returncode == 3 and "2 queries, 3 in the gallery" in done.stdout
    assert done.stderr.splitlines() == told


@pytest.mark.processes
def test_a_video_that_is_missing_is_told_by_the_probe(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0.mp4 0\n1.mp4 1\n2.mp4 0\nmissing.mp4 1\n")
    lists = ("--train", tmp_path / "list.txt", "--test", root / "test.txt", "--data-root", root / "videos")
    options = ("--views", "1", "--seeds", "1", "--workers", "0", "-O", tmp_path / "probe.json")
    done = hico_process("probe", *lists, *options, root=root)
    assert done.returncode == 3 and "3 training and 2 test videos" in done.stdout, done.stderr
    assert f"hico: left out: {root}/videos/missing.mp4: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["extract-features", "--fps", "fast"], 2, ["not a frame rate", "native"]),
        (["extract-features", "--fps", "0"], 2, ["--fps 0.0"]),
        (["extract-features", "--fps", "nan"], 2, ["--fps nan"]),
        (["extract-features", "--fps", "inf"], 2, ["--fps inf"]),
        (["extract-features", "--window", "0"], 2, ["--window 0"]),
        (["extract-features", "--stride", "0"], 2, ["--stride 0"]),
        (["extract-features", "--batch-size", "many"], 2, ["not a number of windows"]),
        (["extract-features", "--shard", "3/2"], 2, ["must be I/N"]),
        (["extract-features", "--shard", "1/2", "--format", "hdf5"], 2, ["without --shard"]),
        (["extract-features", "--align", "center", "--tail", "drop"], 2, ["--align center --tail drop"]),
        (["extract-features", "--layer", "projection"], 1, ["has no projection head"]),
        (["extract-features", "--stride", "8", "--name", "made"], 1, ["has features with stride=16, not 8", "--name"]),
        (["extract-features", "--dtype", "float16", "--name", "made"], 1, ["dtype=float32, not float16"]),
        (["probe", "none"], 1, ["no features here"]),
        (["probe", "made", "--train", "x.txt"], 2, ["--test: name a list to test on"]),
        (
            ["probe", "made", "--train", "x.txt", "--train", "x.txt", "--test", "x.txt"],
            2,
            ["1 list, but --train has 2"],
        ),
        (["probe", "made", "--train", "none.txt", "--test", "none.txt"], 2, ["none.txt: cannot be read"]),
        (["probe", "made", "--shots", "9"], 1, ["fewer than 9 (--shots)"]),
        (["probe", "made", "--encoder", "made"], 2, ["--encoder: has no effect: FEATURES are encoded already"]),
        (["probe", "made", "--views", "2"], 2, ["--views: has no effect: FEATURES are encoded already"]),
        (["probe", "made", "--folds", "3"], 2, ["--folds: needs segments"]),
        (["probe", "made", "--groups", "x.txt"], 2, ["--groups: needs --segments FILE"]),
        (["probe", "made", "--segments", "x.csv", "--shots", "1"], 2, ["--shots: has no effect with --segments"]),
        (["retrieve", "none.mp4", "--gallery-list", "x.txt"], 2, ["--gallery-list: needs --protocol"]),
        (["retrieve", "none.mp4", "--queries", "val"], 2, ["--queries: needs --protocol"]),
        (["retrieve", "--protocol", "clip", "--sheet", "x.html"], 2, ["--sheet: is for the search with a video"]),
        (["retrieve", "--protocol", "clip", "--top", "3"], 2, ["--top: is for the search with a video"]),
        (
            ["retrieve", "--protocol", "clip", "--queries", "val", "--query-list", "x.txt"],
            2,
            ["--queries: has no effect beside a list"],
        ),
        (["evaluate", "made", "--data-root", "x"], 2, ["--data-root: needs --list"]),
        (["extract-features", "x.mp4", "--from", "sources"], 2, ["--from: is for the videos of the index"]),
        (["extract-features", "--id", "relpath"], 2, ["--id: needs INPUTS"]),
        (["extract-features", "--frame-rate", "25"], 2, ["--frame-rate: needs INPUTS"]),
        (["extract-features", "--per-segment", "2"], 2, ["--per-segment: needs --segments FILE"]),
        (["index", "--subset", "val"], 2, ["--subset: needs --untrimmed or --list"]),
        (["index", "--cuts"], 2, ["--cuts: needs --untrimmed or --list"]),
        (["index", "--adopt", "--no-recursive"], 2, ["--recursive: needs --untrimmed"]),
        (["index", "--check", "--move"], 2, ["--move: --check only compares files with records"]),
        (["retrieve"], 2, ["give either a video or --protocol"]),
        (["retrieve", "none.mp4", "--features", "made"], 1, ["none.mp4", "no such file"]),
        (["retrieve", "none.mp4", "--features", "made", "--sheet", "x.gif"], 2, ["must end in .png or .html"]),
        (
            ["retrieve", "--protocol", "clip", "--queries", "train", "--features", "made"],
            1,
            ["queries and gallery share 4 videos, such as "],
        ),
        (
            ["retrieve", "--protocol", "clip", "--queries", "val", "--features", "made"],
            1,
            ["needs labelled videos", "hico index --list FILE"],
        ),
        (["export-tad", "none.json", "--for", "actionformer", "--preset", "anet"], 2, ["none.json: cannot be read"]),
        (
            ["export-tad", "none.json", "--for", "opentad", "--preset", "anet"],
            2,
            ["--for opentad needs --checkout, the folder of OpenTAD"],
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    root: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    before = sorted(path for path in root.rglob("*") if not path.name.startswith("."))
    done = hico(*arguments, root=root)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in " ".join(done.stderr.split())
    assert sorted(path for path in root.rglob("*") if not path.name.startswith(".")) == before


def test_one_class_cannot_be_probed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("0.mp4 0\n2.mp4 0\n")
    lists = ("--train", tmp_path / "one.txt", "--test", root / "test.txt", "--data-root", root / "videos")
    done = hico("probe", "made", *lists, root=root)
    assert_one_line(done, 1, "all training videos have the same label, 0; a probe needs two classes")
    (tmp_path / "none.txt").write_text("7.mp4 0\n")
    lists = ("--train", root / "train.txt", "--test", tmp_path / "none.txt", "--data-root", root / "videos")
    assert_one_line(hico("probe", "made", *lists, root=root), 1, "has no features of any labelled video, such as")
