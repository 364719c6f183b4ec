"""What a command is given stands for videos; what is passed over is counted."""

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import pytest
from buckets import make_bucket
from other_users import not_as_root

from hico_core.base.errors import HicoError, UsageError
from hico_core.corpus.sources.finding import describe_passed_over, find_sources, sources_of, videos_among
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.records import source_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "v_a.MKV", "notes.txt", "-dash.webm", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def ids(*inputs: object) -> list[str]:
    return [source.video_id for source in find_sources(map(str, inputs))]


def test_a_folder_is_its_videos_and_those_below_it(folder: Path) -> None:
    assert ids(folder) == ["-dash", "a", "b", "c"]
    passed_over: Counter[str] = Counter()
    only_own = find_sources([str(folder)], recursive=False, passed_over=passed_over)
    assert [source.video_id for source in only_own] == ["-dash", "a", "b"]
    assert describe_passed_over(passed_over) == "skipped: 1 in subfolders, 1 not named like videos"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.mp4", None),
        ("below/deep/a.webm", None),
        ("train/v_a_0000000_0005000.mp4", None),  # cut by somebody else: no records beside it
        ("own/train/v_a_0000000_0005000.mp4", "clips of a hico workspace"),
        ("own/train/a.mp4", None),
        ("own/records/a.json", "not named like videos"),
        ("._a.mp4", "hidden"),
        (".trash/a.mp4", "hidden"),
        ("a.mp4.part", "not named like videos"),
    ],
)
def test_which_files_of_a_folder_are_taken(name: str, reason: str | None) -> None:
    passed_over: Counter[str] = Counter()
    taken = videos_among({name, "own/records/a.json"}, passed_over)
    assert (name in taken) == (reason is None)
    assert reason is None or passed_over[reason] >= 1


def test_links_to_folders_are_counted_and_not_followed(folder: Path) -> None:
    (folder / "sub/circle").symlink_to(folder)
    (folder / "sub/linked.mp4").symlink_to(folder / "b.mp4")  # of a file: a name like any other
    passed_over: Counter[str] = Counter()
    found = find_sources([str(folder)], passed_over=passed_over)
    assert [source.video_id for source in found] == ["-dash", "a", "b", "c", "linked"]
    assert passed_over["linked folders"] == 1


def test_what_cannot_be_read_is_counted() -> None:
    """Folders and their files without permission, and links to nothing or to where one may not look; not pipes."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for subfolder, mode in (("secret", 0o000), ("listed", 0o444), ("open", 0o755)):
            (folder / subfolder / "below").mkdir(parents=True)
            (folder / subfolder / "v.mp4").write_bytes(b"")
            (folder / subfolder).chmod(mode)
        (folder / "gone.mp4").symlink_to("nowhere.mp4")
        (folder / "to.mp4").symlink_to(folder / "secret/v.mp4")
        os.mkfifo(folder / "pipe.mp4")
        folder.chmod(0o755)
        passed_over: Counter[str] = Counter()
        with not_as_root():
            (found,) = find_sources([str(folder)], passed_over=passed_over)
        (folder / "secret").chmod(0o755)
        (folder / "listed").chmod(0o755)
    assert found.path == folder / "open/v.mp4"
    assert describe_passed_over(passed_over) == "skipped: 1 broken links, 4 unreadable"


def test_functions_take_names_and_sources(folder: Path) -> None:
    source = Source(video_id="x", path=folder / "b.mp4")
    assert sources_of(source) == [source]
    assert [one.video_id for one in sources_of([source, folder / "sub"])] == ["c", "x"]
    assert [one.video_id for one in sources_of(str(folder / "sub"))] == ["c"]


def test_files_patterns_and_lists(folder: Path) -> None:
    assert ids(folder / "b.mp4", folder / "**/*.mp4") == ["b", "c"]
    (folder / "list.txt").write_text(f"b.mp4\n\n{folder}/sub/c.mp4\nmissing.mp4\n")
    assert ids(folder / "list.txt") == ["b", "c", "missing"]


def test_folders_make_ids_of_files_with_one_name(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/c.mp4").write_bytes(b"")
    pattern = str(folder / "**/*.mp4")
    with pytest.raises(HicoError, match=r"other/c\.mp4 and .*sub/c\.mp4 have the same id, 'c'.*--id relpath"):
        find_sources([pattern])
    assert [source.video_id for source in find_sources([pattern], id_rule="relpath")] == ["b", "other-c", "sub-c"]
    (folder / "list.txt").write_text("sub/c.mp4\nother/c.mp4\n")
    found = find_sources([str(folder / "list.txt")], id_rule="relpath")
    assert [source.video_id for source in found] == ["other-c", "sub-c"]


def test_a_list_that_is_not_utf_8(folder: Path) -> None:
    """Names in Latin-1 are bytes of names as any other; what they cannot be used for is said of each."""
    (folder / "list.txt").write_bytes("b.mp4\ncafé.mp4\n".encode("latin-1"))
    good, bad = find_sources([str(folder / "list.txt")])
    assert (good.video_id, good.obstacle) == ("b", None)
    assert bad.obstacle is not None and "is not UTF-8" in bad.obstacle


def test_a_bad_line_costs_its_video_not_the_list(folder: Path) -> None:
    (folder / "list.txt").write_text("b.mp4\nhttps://there/x.mp4\n")
    good, bad = find_sources([str(folder / "list.txt")])
    assert (good.video_id, good.obstacle) == ("b", None)
    assert bad.path == folder / "list.txt, line 2" and "https:// is not supported" in str(bad.obstacle)
    (folder / "list.txt").write_text("https://there/x.mp4\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 1: https.* is not supported"):
        find_sources([str(folder / "list.txt")])


def test_relative_names_with_a_dash_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (source,) = find_sources(["-dash.webm"])
    assert source.path == folder / "-dash.webm"


def test_two_files_with_one_id(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"")
    with pytest.raises(HicoError) as caught:
        ids(folder)
    assert str(folder / "a.mp4") in str(caught.value)
    assert str(folder / "v_a.MKV") in str(caught.value)


@pytest.mark.parametrize("given", ["nowhere", "*.nothing"])
def test_inputs_that_stand_for_nothing(folder: Path, given: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        ids(folder / given)


@pytest.mark.parametrize(
    ("given", "said"),
    [("vidoes", r"pattern; did you mean .*/videos\?$"), ("nowhere", "pattern$"), ("*.videos", "pattern$")],
)
def test_the_nearest_name_is_given(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(UsageError, match=said):
        ids(tmp_path / given)


def test_a_table_is_no_list_of_videos(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("b.mp4,run\n")
    with pytest.raises(UsageError, match=r"a\.csv: not a video; a list of videos is a \.txt file"):
        find_sources([str(tmp_path / "a.csv")])


def test_a_folder_without_videos(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "before").mkdir()
    for name in ("b.mp4", "b.txt"):
        (tmp_path / "before" / name).write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "pictures/a.jpg")
    with pytest.raises(UsageError, match=r"no video files in this folder \(skipped: 1 not named like videos\)"):
        ids(tmp_path / "before", tmp_path / "pictures")  # what was passed over in another folder does not count


@pytest.mark.cluster
@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize(
    ("given", "found"),
    [("[1]", ["[1]/v.mp4"]), ("a[1].mp4", ["a[1].mp4"]), ("b[1].mp4", ["b1.mp4"]), ("[12]/*.mp4", ["1/w.mp4"])],
)
def test_a_name_in_a_bucket_is_a_pattern_only_if_nothing_has_it(given: str, found: list[str]) -> None:
    """As on a disk."""
    make_bucket("patterns")
    for name in ("[1]/v.mp4", "1/w.mp4", "a[1].mp4", "a1.mp4", "b1.mp4"):
        boto3.client("s3").put_object(Bucket="patterns", Key=name, Body=b"video")
    assert [str(one.path) for one in find_sources([f"s3://patterns/{given}"])] == [f"s3://patterns/{n}" for n in found]


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("folder", ["", "in/"])
def test_objects_are_known_from_one_listing(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a request for each of 240,000 videos, wherever in the bucket they lie."""
    bucket = f"listed-{len(folder)}"
    make_bucket(bucket)
    for name in ("a", "b"):
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{folder}{name}.mp4", Body=b"abc")
    found = find_sources([f"s3://{bucket}/{folder}"])
    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", None)  # no more requests
    assert [source_file(source).size_bytes for source in found] == [3, 3]
