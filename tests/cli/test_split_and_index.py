"""`hico split`, `hico index` and `hico doctor` as a newcomer meets them."""

import json
import math
import sys
from pathlib import Path

import pytest
from buckets import keys_in, make_bucket
from commands import TINY, Done, assert_one_line, hico, hico_process
from cores import one_core
from made_videos import numbered_video

from hico_core.base.files import lock
from hico_core.corpus.index import read_class_names, read_index

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, seconds in (("a", 6), ("b", 7), ("c", 11)):
        numbered_video(folder / f"{name}.mp4", seconds=seconds)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["split", "nowhere"], 2, ["nowhere: no such file or folder"]),
        (["split", "empty"], 2, ["empty: no video files in this folder"]),
        (["split", "videos", "--root", "videos/a.mp4"], 2, ["videos/a.mp4 is a file"]),
        (["split", "videos", "other"], 1, ["/a.mp4 and ", "other/a.mp4 have the same id, 'a'"]),
        (["split", "videos", "--min-free", "900000TB"], 1, ["--min-free` keeps", "free some space"]),
        (["split", "videos", "--ray-address", "127.0.0.1:1"], 1, ["127.0.0.1:1: cannot join"]),
        (
            ["split", "videos", "--encoder", "h264_nvenc"],
            1,
            ["cannot encode with h264_nvenc", "another `hico split --encoder`"],
        ),
        (["split", "videos", "--root", "gs://bucket"], 2, ["gs:// is not supported"]),
        (["split", "videos", "--root", "held"], 1, ["held: another hico command is writing here"]),
        (["inspect", "empty"], 1, ["has no index.parquet"]),
        (["index"], 1, ["nothing has been split here yet; run `hico split"]),
        (["index", "--check"], 1, ["nothing has been split here"]),
        (["index", "--adopt"], 2, ["no clips without a record"]),
        (["index", "--untrimmed", "nowhere"], 2, ["nowhere: no such file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_for_each_mistake(
    arguments: list[str], code: int, parts: list[str], videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos").symlink_to(videos)
    for name in ("empty", "other", "held"):
        (tmp_path / name).mkdir()
    (tmp_path / "other/a.mp4").write_bytes(b"")
    with lock(tmp_path / "held/.lock", refusal=""):
        done = hico(*arguments, cwd=tmp_path)
    assert_one_line(done, code, *parts)
    assert not list(tmp_path.rglob("*.mp4.tmp")) and not list(tmp_path.rglob("split-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root may write to")
def test_no_permission(videos: Path) -> None:
    assert_one_line(hico("split", videos, "--root", "/sys/hico"), 1, "/sys/hico")


@pytest.mark.parametrize(
    "arguments",
    [
        ["split"],
        ["split", "x", "--shard", "3/2"],
        ["split", "x", "--shard", "half"],
        ["split", "x", "--min-free", "much"],
        ["split", "x", "--short-side", "3"],
        ["split", "x", "--profile", "best"],
        ["split", "x", "--fps", "0"],
        ["index", "--val-fraction", "2"],
        ["index", "--cuts"],
        ["index", "--check", "--adopt"],
        ["index", "--data-root", "x"],
    ],
)
def test_wrong_values(arguments: list[str], tmp_path: Path) -> None:
    done = hico(*arguments, root=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def split(videos: Path, root: Path, *options: str) -> Done:
    return hico("split", videos, "--preset", "ultrafast", "--short-side", "96", *options, root=root)


def test_failures_are_told_once_more_and_tried_again_when_asked(videos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    inputs = [videos / "a.mp4", broken]
    assert_one_line(
        Done(3, "", hico("split", *inputs, root=tmp_path / "root").stderr.splitlines()[-1]), 3, "1 video failed"
    )
    done = hico("split", *inputs, root=tmp_path / "root")
    assert done.returncode == 3
    assert "1 earlier (`hico split --retry-failed` tries them again)" in done.stderr.splitlines()[-1]
    done = hico("split", *inputs, "--retry-failed", root=tmp_path / "root")
    assert "before" not in done.stderr.splitlines()[-1]

    status = json.loads(hico("inspect", tmp_path / "root", "--json").stdout)["status"]
    assert [(row["state"], row["num_videos"]) for row in status] == [("done", 1), ("failed: probe", 1)]
    done = hico("inspect", tmp_path / "root")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("records of train: 1 split, done (2 clips, ")
    assert second == "records of train: 1 split, failed: probe"
    assert "run `hico index --root" in third


def test_profiles_and_options(videos: Path, tmp_path: Path) -> None:
    done = hico("split", videos / "a.mp4", "--profile", "archive", "--crf", "30", "--fps", "15", root=tmp_path)
    assert done.returncode == 0, done.stderr
    options = json.loads((tmp_path / "records/a.json").read_text())["options"]
    assert (options["preset"], options["crf"], options["fps"], options["short_side"]) == ("medium", 30, 15, 256)
    done = hico("split", videos / "a.mp4", "--short-side", "0", root=tmp_path)
    assert json.loads((tmp_path / "records/a.json").read_text())["options"]["short_side"] is None


def test_check_names_what_differs(videos: Path, tmp_path: Path) -> None:
    split(videos, tmp_path)
    assert hico("index", "--check", root=tmp_path).stdout == "all files match the records\n"
    (tmp_path / "train/v_a_0000000_0005000.mp4").unlink()
    done = hico("index", "--check", root=tmp_path)
    assert done.returncode == 3
    assert done.stderr == f"hico: {tmp_path}/train/v_a_0000000_0005000.mp4: missing\n"


def test_clips_of_another_tool(videos: Path, tmp_path: Path) -> None:
    split(videos, tmp_path)
    for path in (tmp_path / "records").iterdir():
        path.unlink()
    (tmp_path / "train/v_c_0005000_0010000.mp4").unlink()
    done = hico("index", "--adopt", root=tmp_path)
    assert done.returncode == 0
    gaps = [line for line in done.stderr.splitlines() if line.startswith("hico: ")]
    assert gaps == [f"hico: {tmp_path}/train/v_c_*.mp4: has no clip of 5 to 10 s; adopted with the gaps"]
    assert done.stdout.startswith("6 clips of 3 videos")


def test_pretraining_without_splitting(videos: Path, tmp_path: Path) -> None:
    done = hico("index", "--untrimmed", videos, "--val-fraction", "0", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 clips of 3 videos")
    assert not (tmp_path / "train").exists()
    done = hico("pretrain", *TINY, "--epochs", "2", "--max-steps", "1", "-o", "data.workers=0", root=tmp_path)
    assert done.returncode == 0, done.stderr
    done = hico("extract-features", root=tmp_path)
    assert done.returncode == 0 and "3 videos extracted" in done.stdout
    with one_core():
        speed = json.loads(hico("doctor", "--loader", "--json", root=tmp_path).stdout)
    assert speed["workers"] == 1
    assert speed["num_clips"] == 120 and speed["cores_needed"] == math.ceil(
        (speed["gpu_clips_per_second"] or 1000) * speed["seconds_per_clip"]
    )


@pytest.mark.processes
@pytest.mark.cluster
@pytest.mark.usefixtures("buckets")
def test_the_four_commands_on_a_bucket(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips, records, index and features lie in the bucket; runs here."""
    monkeypatch.chdir(tmp_path)
    cache = ["--cache-dir", "cache", "--cache-size", "1GB"]
    make_bucket("corpus")
    root = ["--root", "s3://corpus/root"]
    assert hico("split", videos, *root, "--cache-dir", "cache").returncode == 0
    assert hico("split", videos, *root, "--cache-dir", "cache").stdout.startswith("0 videos split, 3 unchanged")
    assert hico("index", *root).stdout.startswith("7 clips of 3 videos")
    assert hico("index", "--check", *root).returncode == 0
    # A process of its own, whose workers know the server's address from the beginning.
    training = ["pretrain", *TINY, "--epochs", "2", "--max-steps", "1", "-o", "data.workers=2"]
    done = hico_process(*training, *cache, root="s3://corpus/root")
    assert done.returncode == 0, done.stderr
    done = hico_process("extract-features", *cache, root="s3://corpus/root")
    assert done.returncode == 0, done.stderr
    assert len(read_index("s3://corpus/root")) == 7
    assert "root/training.txt" in keys_in("corpus")
    assert_one_line(hico("split", videos, "--root", "s3://none/x"), 1, "no such bucket, 'none'")
    assert (tmp_path / "hico-data/runs/hacs-hico-s/export/encoder.safetensors").exists()
    written = {key.rpartition("/")[2] for key in keys_in("corpus") if key.startswith("root/features/hacs-hico-s/")}
    assert written == {"a.npy", "b.npy", "c.npy", "manifest.jsonl"}
    done = hico_process("extract-features", *cache, root="s3://corpus/root")
    assert done.stdout.startswith("0 videos extracted, 3 unchanged"), done.stderr


def test_the_doctor_tells_what_is_there(tmp_path: Path) -> None:
    done = hico("doctor", root=tmp_path)
    assert done.returncode == 0
    assert "encoder libx264" in done.stdout
    assert_one_line(hico("doctor", "--loader", root=tmp_path), 1, "run `hico index")
    findings = json.loads(hico("doctor", "--json", root=tmp_path).stdout)["findings"]
    assert {"ffmpeg", "PyAV", "workspace"} <= {finding["name"] for finding in findings}


@pytest.mark.processes
def test_what_pretraining_leaves_out_is_said_alike(tmp_path: Path) -> None:
    for name, seconds in (("a", 3), ("b", 3), ("short", 1)):
        numbered_video(tmp_path / f"videos/{name}.mp4", seconds=seconds)
    left_out = "pretraining leaves out 1 video shorter than one clip (2.13 s)"
    done = hico("index", "--untrimmed", tmp_path / "videos", root=tmp_path)
    assert done.stdout == f"3 clips of 3 videos in {tmp_path}/index.parquet; {left_out}\n"
    assert json.loads(hico("index", "--json", root=tmp_path).stdout)["num_short"] == 1
    done = hico_process("pretrain", *TINY, "-o", "data.workers=0", "--max-steps", "1", root=tmp_path)
    assert done.returncode == 0 and f"hico: {left_out}" in done.stderr.splitlines(), done.stderr
    (tmp_path / "test.txt").write_text("videos/short.mp4 0\n")
    moved = ("--list", tmp_path / "test.txt", "--subset", "test", "--move")
    assert "leaves out" not in hico("index", *moved, root=tmp_path).stdout, "it is none to pretrain on"


def test_lists_may_name_classes(tmp_path: Path) -> None:
    """A class has one number, though the list for testing names fewer."""
    root = tmp_path / "root"
    for name in ("a", "b", "c"):
        numbered_video(tmp_path / f"{name}.mp4", seconds=3)
    (tmp_path / "train.txt").write_text("a.mp4\thigh jump\nb.mp4\tbow\n")
    (tmp_path / "test.txt").write_text("c.mp4\thigh jump\n")
    for subset in ("train", "test"):
        done = hico("index", "--list", tmp_path / f"{subset}.txt", "--subset", subset, root=root)
        assert done.returncode == 0, done.stderr
    index = read_index(root)
    found = index[["video_id", "label", "class_name"]].to_numpy().tolist()
    assert found == [["a", 1, "high jump"], ["b", 0, "bow"], ["c", 1, "high jump"]]
    assert read_class_names(root) == {0: "bow", 1: "high jump"}
    moved = hico("index", "--list", tmp_path / "test.txt", "--data-root", tmp_path / "root", root=root)
    assert_one_line(moved, 2, "none of its videos exists", "--data-root")


def failures_in(root: Path) -> dict[str, str]:
    rows = map(json.loads, (root / "failures.jsonl").read_text().splitlines())
    return {row["source"]: row["error"] for row in rows}


def test_a_bad_row_costs_its_video_not_the_index(videos: Path, tmp_path: Path) -> None:
    """It is told and listed, and off the list once it is mended."""
    for name, new in (("a", "x_000003_000009"), ("b", "y_000000_000007"), ("c", "z_000001_000012")):
        (tmp_path / f"{new}.mp4").symlink_to(videos / f"{name}.mp4")
    listed = tmp_path / "val.csv"
    good = ["label,youtube_id,time_start,time_end", "bow,x,3,9", "run,y,0,7"]
    listed.write_text("\r\n".join([*good, "bow,y,0,7", "run,z,soon,12"]), encoding="utf-8-sig")
    done = hico("index", "--list", listed, root=tmp_path / "root")
    assert done.returncode == 3 and "2 clips of 1 video in" in done.stdout, done.stderr
    expected = {
        f"{tmp_path}/y_000000_000007.mp4": "is in the list with two labels, 'run' and 'bow'",
        f"{tmp_path}/val.csv, line 5": "its time_start 'soon' is not a whole number of seconds",
    }
    assert failures_in(tmp_path / "root") == expected
    for source, error in expected.items():
        assert f"hico: {source}: {error}" in done.stderr.splitlines()
    listed.write_text("\n".join([*good, "run,y,0,7", "run,z,1,12"]))
    done = hico("index", "--list", listed, root=tmp_path / "root")
    assert done.returncode == 0 and "of 3 videos in" in done.stdout, done.stderr
    assert failures_in(tmp_path / "root") == {}
    index = read_index(tmp_path / "root")
    assert dict(zip(index["video_id"].str[0], index["class_name"], strict=True)) == {"x": "bow", "y": "run", "z": "run"}


def test_a_list_with_everything_that_a_line_can_be(videos: Path, tmp_path: Path) -> None:
    """Each line is one video, done or failed by itself; nothing ends the command."""
    lines = ["..", "/", ".", "x" * 5000, f"{'x/' * 3000}deep.mp4", "tab\there.mp4", "gs://there/x.mp4", "none.mp4", "#"]
    (tmp_path / "list.txt").write_text("\n".join([*lines, str(videos / "a.mp4"), str(videos / "a.mp4")]))
    done = hico("split", tmp_path / "list.txt", root=tmp_path / "root")
    assert done.returncode == 3 and "1 video split, 0 unchanged, 9 failed" in done.stdout, done.stderr
    assert f"hico: {tmp_path}/list.txt, line 7: gs://there/x.mp4: gs:// is not supported" in done.stderr
    assert len(failures_in(tmp_path / "root")) == 9
    (tmp_path / "list.txt").write_text(str(videos / "a.mp4"))
    assert hico("split", tmp_path / "list.txt", root=tmp_path / "root").returncode == 0
    assert not any(", line" in source for source in failures_in(tmp_path / "root")), "a line that was mended"
