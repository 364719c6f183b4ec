"""One road into a workspace: an id belongs to one file, one subset and one way in, and nothing good is ever lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest
from buckets import make_bucket, put_denied
from made_videos import numbered_video, run_ffmpeg
from trees import tree

from hico_core.base.addresses import Location, is_local, locate
from hico_core.base.errors import HicoError
from hico_core.base.failures import FailedSource, Failure, read_failures, update_failures
from hico_core.base.files import json_line, read_json_lines
from hico_core.base.storage import write_text
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.adopt import adopt_clips
from hico_core.corpus.index import build_index, read_index
from hico_core.corpus.intake import Candidate, Made, Rules, decide, is_same_file, new_record, take_one
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.sources.lists import labelled_videos, listed_clips
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import (
    AdoptedOptions,
    ClipRecord,
    Options,
    SourceFile,
    SplitOptions,
    UntrimmedOptions,
    VideoRecord,
    read_record,
    source_file,
)

pytestmark = pytest.mark.videos

SMALL = SplitOptions(short_side=64, preset="ultrafast")


def split(
    path: Path | list[Path],
    root: Path,
    options: SplitOptions = SMALL,
    policy: SplitPolicy = SplitPolicy(),  # noqa: B008 - immutable
) -> tuple[Summary, list[VideoEvent]]:
    events: list[VideoEvent] = []
    given = [str(one) for one in (path if isinstance(path, list) else [path])]
    summary = split_videos(
        find_sources(given), root=root, options=options, workers=2, policy=policy, on_event=events.append
    )
    return summary, events


def add(path: Path, root: Path, options: UntrimmedOptions = UntrimmedOptions()) -> Summary:  # noqa: B008 - immutable
    return add_untrimmed(find_sources([str(path)]), root=root, options=options, workers=2)


def add_list(path: Path, root: Path, options: UntrimmedOptions = UntrimmedOptions()) -> Summary:  # noqa: B008 - immutable
    path.with_suffix(".txt").write_text(f"{path.name} 1\n")
    sources = labelled_videos(path.with_suffix(".txt"), data_root=path.parent)
    return add_untrimmed(sources, root=root, options=options, workers=2)


def adopt(root: Path) -> Summary:
    return adopt_clips(root, workers=1)


def clips_of(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(root).items() if name.endswith(".mp4")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4, of 7 s, split in root."""
    folder = tmp_path_factory.mktemp("intake")
    numbered_video(folder / "a.mp4", seconds=7)
    split(folder / "a.mp4", folder / "root")
    return folder


@pytest.fixture
def one(made: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "one"))
    record = json.loads((folder / "root/records/a.json").read_text())
    record["source"]["path"] = str(folder / "a.mp4")
    (folder / "root/records/a.json").write_text(json.dumps(record))
    return folder


# --- what was committed stays until its replacement is checked


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "options", "policy", "said"),
    [
        (damage, SMALL, SplitPolicy(rules=Rules(force=True)), "cannot be opened"),
        (damage, SMALL, SplitPolicy(), "cannot be opened"),  # the source changed
        (None, SMALL.model_copy(update={"crf": 40}), SplitPolicy(timeout_seconds=0.001), "--timeout"),
        (None, SMALL, SplitPolicy(rules=Rules(force=True), timeout_seconds=0.001), "--timeout"),
        (None, SMALL.model_copy(update={"segment_seconds": 30.0, "tail": "drop"}), SplitPolicy(), "shorter than one"),
    ],
)
def test_a_failure_keeps_the_clips_that_were_there(
    one: Path, spoil: Callable[[Path], None] | None, options: SplitOptions, policy: SplitPolicy, said: str
) -> None:
    root = one / "root"
    before = clips_of(root)
    record = read_record(root, "a")
    if spoil:
        spoil(one / "a.mp4")
    summary, (event,) = split(one / "a.mp4", root, options, policy)
    assert (summary.num_failed, event.outcome) == (1, "failed")
    assert said in event.note and "kept its 2 existing clips" in event.note
    assert clips_of(root) == before and len(before) == 2
    assert read_record(root, "a") == record
    (line,) = read_failures(root)
    assert line.error == event.note
    assert build_index(root).num_clips == 2


def test_a_failure_after_a_success_is_forgotten_by_the_next_success(one: Path) -> None:
    root = one / "root"
    split(one / "a.mp4", root, policy=SplitPolicy(rules=Rules(force=True), timeout_seconds=0.001))
    split(one / "a.mp4", root, policy=SplitPolicy(rules=Rules(force=True), timeout_seconds=0.001))
    assert read_failures(root)[0].attempts == 2
    assert split(one / "a.mp4", root, policy=SplitPolicy(rules=Rules(force=True)))[0].num_done == 1
    assert read_failures(root) == []


def test_a_source_that_changes_while_it_is_read_is_split_again(
    one: Path, ffmpeg_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips may be of either file; what is recorded is the one that was there before."""
    changing = one / "ffmpeg"
    changing.write_text(f'#!/bin/sh\ntouch "{one / "a.mp4"}"\nexec "{ffmpeg_program}" "$@"\n')
    changing.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("HICO_FFMPEG", str(changing))
        assert split(one / "a.mp4", one / "root", policy=SplitPolicy(rules=Rules(force=True)))[0].num_done == 1
    assert split(one / "a.mp4", one / "root")[0].num_done == 1
    assert split(one / "a.mp4", one / "root")[0].num_unchanged == 1


# --- may this video have its id?


def record_of(options: Options, path: str, *, failed: bool = False) -> VideoRecord:
    return VideoRecord(
        hico_version="0",
        video_id="a",
        source=SourceFile(path=path, size_bytes=0, mtime_ns=0),
        options=options,
        attempts=1,
        failure=Failure(stage="probe", error="") if failed else None,
    )


def test_an_id_is_free_or_known(tmp_path: Path) -> None:
    gone, here = Source(video_id="a", path=tmp_path / "gone.mp4"), Source(video_id="a", path=tmp_path / "here.mp4")
    (tmp_path / "here.mp4").write_bytes(b"")
    new = Candidate(gone, SMALL)
    assert decide(None, new, Rules()) == "to do"
    known = new_record(new, None)
    assert decide(known, new, Rules()) == "unchanged"
    assert decide(known, new, Rules(force=True)) == "to do"
    assert decide(known, new, Rules(verify="full")) == "to do"
    assert decide(known, new._replace(options=SMALL.model_copy(update={"crf": 1})), Rules()) == "to do"
    failed = record_of(SMALL, str(gone.path), failed=True)
    assert decide(failed, new, Rules()) == "failed before"
    assert decide(failed, new, Rules(retry_failed=True)) == "to do"
    assert decide(failed, Candidate(here, SMALL), Rules()) == "to do", "a failure holds no id"
    assert decide(record_of(SMALL, "/nowhere/a.mp4"), Candidate(here, SMALL), Rules()) in {"to do", "unchanged"}


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (SMALL, UntrimmedOptions(), "was split here"),
        (SMALL, AdoptedOptions(), "was split here"),
        (UntrimmedOptions(), SMALL, "is read in place here"),
        (AdoptedOptions(), SMALL, "was cut by another tool and adopted here"),
        (AdoptedOptions(), UntrimmedOptions(), "was cut by another tool"),
    ],
)
def test_an_id_came_in_one_way(was: Options, now: Options, said: str) -> None:
    candidate = Candidate(Source(video_id="a", path=Path("/nowhere/a.mp4")), now)
    with pytest.raises(HicoError, match=f"/nowhere/a.mp4: a video with id 'a' {said} .*; use another --root"):
        decide(record_of(was, "/nowhere/b.mp4"), candidate, Rules(force=True))


INTAKES: dict[str, Callable[[Path, Path], object]] = {
    "split": lambda path, root: split(path, root),
    "untrimmed": add,
    "list": add_list,
}


@pytest.mark.parametrize("way", INTAKES)
def test_one_id_in_two_folders(tmp_path: Path, way: str) -> None:
    """d1/0001.mp4 now and d2/0001.mp4 later: the second does not take the place of the first."""
    for name in ("d1", "d2"):
        numbered_video(tmp_path / name / "0001.mp4", seconds=1)
    intake = INTAKES[way]
    intake(tmp_path / "d1/0001.mp4", tmp_path / "root")
    before = tree(tmp_path / "root")
    with pytest.raises(
        HicoError, match=r"d2/0001\.mp4 and .*d1/0001\.mp4, added before, have the same id.*--id relpath"
    ):
        intake(tmp_path / "d2/0001.mp4", tmp_path / "root")
    assert tree(tmp_path / "root") == before


def test_the_remedy_of_two_folders_works(tmp_path: Path) -> None:
    """--id relpath, which the message names, for folders and for lists like those of Kinetics."""
    for name in ("d1", "d2"):
        numbered_video(tmp_path / name / "0001.mp4", seconds=1)
    sources = find_sources([f"{tmp_path}/*/*.mp4"], id_rule="relpath")
    split_videos(sources, root=tmp_path / "root", options=SMALL, workers=2)
    (tmp_path / "list.txt").write_text("d1/0001.mp4 0\nd2/0001.mp4 1\n")
    listed = labelled_videos(tmp_path / "list.txt", data_root=tmp_path, id_rule="relpath")
    add_untrimmed(listed, root=tmp_path / "other", options=UntrimmedOptions(), workers=1)
    for root in (tmp_path / "root", tmp_path / "other"):
        build_index(root)
        assert list(read_index(root)["video_id"]) == ["d1-0001", "d2-0001"]


@pytest.mark.parametrize("way", ["split", "untrimmed", "list"])
def test_an_id_is_in_one_subset(tmp_path: Path, way: str) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=1)
    root, path = tmp_path / "root", tmp_path / "a.mp4"
    INTAKES[way](path, root)
    before = tree(root)
    with pytest.raises(
        HicoError, match=r"a\.mp4: .* 'a' is already in the subset train; move it to val with `hico \w+ --move`"
    ):
        if way == "split":
            split(path, root, SMALL.model_copy(update={"subset": "val"}))
        else:
            {"untrimmed": add, "list": add_list}[way](path, root, UntrimmedOptions(subset="val"))
    assert tree(root) == before


def test_the_remedy_of_another_subset_works(one: Path) -> None:
    split(one / "a.mp4", one / "root", SMALL.model_copy(update={"subset": "val"}), SplitPolicy(rules=Rules(move=True)))
    assert {name.split("/")[0] for name in clips_of(one / "root")} == {"val"}
    assert build_index(one / "root").clips_of == {"val": 2}


def test_clips_of_another_tool_are_not_overwritten(one: Path, tmp_path: Path) -> None:
    """Neither those that were taken in, nor those that only lie there."""
    root = tmp_path / "theirs"
    (root / "train").mkdir(parents=True)
    for name, content in clips_of(one / "root").items():
        (root / name).write_bytes(content)
    before = clips_of(root)
    summary, (event,) = split(one / "a.mp4", root, SMALL.model_copy(update={"crf": 40}))
    assert (
        summary.num_failed == 1
        and f"`hico index --adopt --root {root}` adopts such clips, `hico split --force`" in event.note
    )
    assert clips_of(root) == before
    (root / "records/a.json").unlink()
    assert adopt(root).num_done == 1  # the first remedy
    with pytest.raises(HicoError, match="was cut by another tool and adopted here"):
        split(one / "a.mp4", root, SMALL, SplitPolicy(rules=Rules(force=True)))
    assert clips_of(root) == before
    (root / "records/a.json").unlink()
    assert split(one / "a.mp4", root, SMALL, SplitPolicy(rules=Rules(force=True)))[0].num_done == 1  # the second one


def test_listed_clips_of_a_video_that_was_split(one: Path, tmp_path: Path) -> None:
    build_index(one / "root")
    sources = listed_clips(one / "root/training.txt", data_root=one / "root")
    candidates = [Candidate(source, AdoptedOptions()) for source in sources]
    assert len(candidates) == 1 and len(sources[0].clips) == 2
    with pytest.raises(HicoError, match="was split here"):
        adopt_clips(one / "root", videos=candidates, workers=1)
    assert adopt_clips(tmp_path / "new", videos=candidates, workers=1).num_parts == 2
    assert build_index(tmp_path / "new").num_clips == 2


# --- odd names and files: each is used where it can be, else one failure in one line


def odd_names(folder: Path) -> Iterator[Path]:
    for name in [
        "x" * 245 + ".mp4",  # 249 bytes: too long for its clips, but not for itself
        "line\nbreak.mp4",
        "separator\u2028.mp4",
        "no\xa0break.mp4",
        os.fsdecode(b"latin-\xe9.mp4"),
    ]:
        yield folder / name


def test_one_odd_name_does_not_stop_the_others(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in (folder / "good.mp4", *odd_names(folder)):
        shutil.copyfile(made / "a.mp4", path)
    summary, _ = split(folder, tmp_path / "root")
    assert (summary.num_done, summary.num_failed) == (2, 4)
    found = add(folder, tmp_path / "in place")
    assert (found.num_done, found.num_failed) == (3, 3), "a long name is long enough where no clip is named by it"
    for root in (tmp_path / "root", tmp_path / "in place"):
        lines = read_json_lines(root / "failures.jsonl")
        assert len(lines.rows) == (4 if root.name == "root" else 3) and not lines.num_unreadable
        assert build_index(root).num_videos == (2 if root.name == "root" else 3)
        assert "no\xa0break" in set(read_index(root)["video_id"])
    assert split(folder, tmp_path / "root")[0].num_unchanged == 2, "what was written can be read again"


@pytest.mark.parametrize("way", ["split", "untrimmed"])
def test_names_that_only_this_file_system_refuses(way: str, made: Path, tmp_path: Path) -> None:
    """As some do with colons, and as any does with a path of more than 4095 bytes, of which the root has most here."""
    root = tmp_path.joinpath(*["r" * 200] * 20)
    root = Path(str(root)[:3850])
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a", "x" * 215):
        shutil.copyfile(made / "a.mp4", videos / f"{name}.mp4")
    INTAKES[way](videos, root)
    (line,) = read_failures(root)
    assert line.stage == "name" and "is refused here (File name too long); rename it" in line.error
    assert build_index(root).num_videos == 1


@pytest.mark.parametrize(
    ("number", "path", "said"),
    [
        (errno.EIO, "/nowhere/a.mp4", None),
        (errno.EIO, "/nowhere/a.mp4/img_1.jpg", None),  # a frame folder
        (errno.EACCES, "/nowhere/a.mp4-root/.tmp", "Permission denied"),
        (errno.ENOSPC, None, "No space left on device; free some space"),
    ],
)
def test_system_errors_about_a_video_are_its_failure(
    number: int, path: str | None, said: str | None, tmp_path: Path
) -> None:
    """One that names its file is; one about the workspace ends the run."""

    def make(candidate: Candidate, folder: Path) -> Made:
        raise OSError(number, os.strerror(number), path)

    for name in ("records", ".tmp"):
        (tmp_path / name).mkdir()
    candidate = Candidate(Source(video_id="a", path=Path("/nowhere/a.mp4")), SMALL)
    take = partial(take_one, candidate, root=tmp_path, scratch=tmp_path / ".tmp", rules=Rules(), make=make)
    if said is None:
        record = take().record
        assert record is not None and record == read_record(tmp_path, "a")
        assert record.failure is not None and record.failure.error == "cannot be read (Input/output error)"
        return
    with pytest.raises((OSError, HicoError), match=said):
        take()
    assert read_record(tmp_path, "a") is None and not any((tmp_path / ".tmp").iterdir())


def take_objects(way: str, videos: list[Source], root: Location) -> Summary:
    if way == "split":
        return split_videos(videos, root=root, options=SMALL, workers=1)
    return add_untrimmed(videos, root=root, options=UntrimmedOptions(), workers=1)


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("way", ["split", "untrimmed"])
def test_an_object_that_nobody_may_read(way: str, made: Path, tmp_path: Path) -> None:
    bucket = f"denied-{way}"
    make_bucket(bucket)
    boto3.client("s3").upload_file(str(made / "a.mp4"), bucket, "a.mp4")
    put_denied(bucket, "b.mp4", (made / "a.mp4").read_bytes())
    videos, root = find_sources([f"s3://{bucket}/"]), tmp_path / "root"
    take_objects(way, videos, root)
    assert [line.error.split(" (")[0] for line in read_failures(root)] == ["cannot be fetched"]
    assert build_index(root).num_videos == 1


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("way", ["split", "untrimmed"])
def test_a_bucket_that_cannot_be_reached_any_more(way: str, made: Path, tmp_path: Path) -> None:
    """The command ends and can be given again; no video is marked as failed."""
    bucket = f"lost-{way}"
    make_bucket(bucket)
    boto3.client("s3").upload_file(str(made / "a.mp4"), bucket, "a.mp4")
    videos, root = find_sources([f"s3://{bucket}/"]), tmp_path / "root"

    def lose(**asked: object) -> None:
        raise RuntimeError("no network")  # drivers raise errors of their own

    place = videos[0].path
    assert not is_local(place)
    place.filesystem.s3.meta.events.register("before-call.s3.GetObject", lose)
    with pytest.raises(HicoError, match=r"a\.mp4: cannot be fetched \(no network\)"):
        take_objects(way, videos, root)
    place.filesystem.s3.meta.events.unregister("before-call.s3.GetObject", lose)
    assert read_failures(root) == [] and read_record(root, "a") is None
    assert take_objects(way, videos, root).num_done == 1


@pytest.mark.usefixtures("buckets")
def test_a_bucket_takes_names_that_no_disk_takes(made: Path, tmp_path: Path) -> None:
    """Those of videos that are read in place; clips are made on a disk."""
    make_bucket("names")
    root, video = locate("s3://names/root"), Source(video_id="x" * 300, path=made / "a.mp4")
    assert take_objects("untrimmed", [video], root).num_done == 1
    assert build_index(root).num_videos == 1


def test_a_line_end_in_a_folder_name(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "u\u2028\x85"
    folder.mkdir()
    shutil.copyfile(made / "a.mp4", folder / "a.mp4")
    (folder / "bad.mp4").write_text("no video")
    assert split(folder, tmp_path / "root")[0].num_done == 1
    assert [line.source for line in read_failures(tmp_path / "root")] == [str(folder / "bad.mp4")]


def test_what_is_no_regular_file_is_not_waited_for(made: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    shutil.copyfile(made / "a.mp4", tmp_path / "a.mp4")
    (tmp_path / "list.txt").write_text("pipe.mp4\nfolder.mp4\na.mp4\n")
    summary, events = split(tmp_path / "list.txt", tmp_path / "root", policy=SplitPolicy(timeout_seconds=20))
    assert (summary.num_done, summary.num_failed) == (1, 2)
    assert {event.note.split(";")[0] for event in events if event.note} == {"is not a regular file", "is a folder"}
    assert add(tmp_path / "list.txt", tmp_path / "other").num_failed == 2


def test_playlists_are_no_videos(made: Path, tmp_path: Path) -> None:
    shutil.copyfile(made / "a.mp4", tmp_path / "target.mp4")
    (tmp_path / "script.mp4").write_text("ffconcat version 1.0\nfile target.mp4\n")
    segment = "#EXTM3U\n#EXT-X-TARGETDURATION:7\n#EXTINF:7,\ntarget.mp4\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(segment)
    given = [tmp_path / "script.mp4", tmp_path / "list.m3u8"]
    assert split(given, tmp_path / "root")[0].num_failed == 2
    for path in given:
        assert add(path, tmp_path / "other").num_failed == 1


def test_frames_that_are_all_at_one_time(tmp_path: Path) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x64:d=1:r=10")
    run_ffmpeg(*source, "-c:v", "mjpeg", "-bsf:v", "setts=ts=0", tmp_path / "a.mkv")
    (tmp_path / "a.txt").write_text("a.mkv\n")
    for summary in (split(tmp_path / "a.txt", tmp_path / "root")[0], add(tmp_path / "a.txt", tmp_path / "other")):
        assert summary.num_failed == 1
    assert read_failures(tmp_path / "root")[0].stage in {"probe", "decode"}


# --- files that somebody else wrote


def test_a_record_reaches_no_file_outside_the_workspace(one: Path) -> None:
    victim = one / "victim.mp4"
    victim.write_bytes(b"precious")
    path = one / "root/records/a.json"
    content = json.loads(path.read_text())
    for evil in ("../victim.mp4", str(victim), "train/../../victim.mp4", "train/v_b_0000000_0005000.mp4"):
        content["clips"][0]["path"] = evil
        path.write_text(json.dumps(content))
        with pytest.raises(
            HicoError, match=r"a\.json: not a record that this version of hico wrote \(.* is not a possible path"
        ):
            build_index(one / "root")
        summary, (event,) = split(one / "a.mp4", one / "root")
        assert summary.num_failed == 1 and "--force" in event.note
        assert split(one / "a.mp4", one / "root", policy=SplitPolicy(rules=Rules(force=True)))[0].num_done == 1
        assert victim.read_bytes() == b"precious"


def test_a_record_of_another_name(one: Path) -> None:
    (one / "root/records/a.json").rename(one / "root/records/b.json")
    with pytest.raises(HicoError, match=r"b\.json: is the record of 'a'"):
        build_index(one / "root")


@pytest.mark.parametrize("tail", [b'{"source": "cut', b"\xff\xfe\n", b'{"source": "x"}\n', b"[1]\n"])
def test_a_damaged_list_of_failures_is_mended(one: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    update_failures(one / "root", command="x", fine=[], failed=[FailedSource("s", Failure(stage="p", error="e"))])
    path = one / "root/failures.jsonl"
    path.write_bytes(path.read_bytes() + tail)
    assert split(one / "a.mp4", one / "root")[0].num_unchanged == 1
    assert [line.source for line in read_failures(one / "root")] == ["s"]
    assert "1 damaged lines are dropped" in caplog.text
    assert json_line({"a": "\u2028"}) == b'{"a": "\\u2028"}\n'


# --- two at once, other disks, full disks


def test_the_workspace_may_be_on_another_disk(made: Path, tmp_path: Path) -> None:
    """Not on that of the temporary folder, where nothing can be renamed into it."""
    disk = Path("/dev/shm")
    if not disk.is_dir() or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system here")
    root = disk / f"hico-{os.getpid()}"
    try:
        assert add(made / "a.mp4", root).num_done == 1
        assert split(made / "a.mp4", root / "split")[0].num_done == 1
        assert build_index(root).num_videos == 1
    finally:
        shutil.rmtree(root, ignore_errors=True)


HICO = [sys.executable, "-c", "from hico_cli.main import main; main()"]


@pytest.mark.processes
def test_two_indexers_at_once(one: Path) -> None:
    """One of them may be told that the other is at it; the index is whole in any case."""
    command = [*HICO, "index", "--root", str(one / "root")]
    for _ in range(3):
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        said = [process.communicate() for process in both]
        codes = [process.returncode for process in both]
        assert 0 in codes and set(codes) <= {0, 1}, said
        assert all(
            "another hico command is writing here" in err for code, (_, err) in zip(codes, said, strict=True) if code
        )
        assert len(read_index(one / "root")) == 2


@pytest.mark.processes
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_disk_without_room_is_no_fault_of_the_video(one: Path, tmp_path: Path, error: str) -> None:
    environment = {**os.environ, "HICO_FAULT": f"commit.record={error}"}
    command = [*HICO, "split", str(one / "a.mp4"), "--root", str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert os.strerror(getattr(__import__("errno"), error)) in line and "the same command continues" in line
    assert not (tmp_path / "root/failures.jsonl").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert len(clips_of(tmp_path / "root")) == 2


@pytest.mark.processes
def test_a_file_size_limit_is_no_fault_of_the_video(one: Path, tmp_path: Path) -> None:
    limited = f'ulimit -f 8; exec {sys.executable} -c \'from hico_cli.main import main; main()\' split "$0" --root "$1"'
    numbered_video(tmp_path / "b.mp4", seconds=8, size="640x480")
    done = subprocess.run(
        ["bash", "-c", limited, tmp_path / "b.mp4", tmp_path / "root"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "the same command continues" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "root/records").iterdir())


def test_rows_name_only_files_that_records_may_name() -> None:
    clip = ClipRecord(
        path="/videos/a.mp4",
        start_ms=0,
        end_ms=1000,
        start_seconds=0,
        end_seconds=1,
        num_frames=1,
        width=2,
        height=2,
        codec="h264",
        keyframe_interval=1,
        size_bytes=1,
        sha256=None,
    )
    record = record_of(UntrimmedOptions(), "/videos/a.mp4")
    good = record.model_dump() | {"clips": [clip.model_dump()]}
    assert VideoRecord.model_validate(good).clips == [clip]
    with pytest.raises(ValueError, match="is not a possible path for a clip of 'a'"):
        VideoRecord.model_validate(good | {"clips": [clip.model_dump() | {"path": "/etc/passwd"}]})


@pytest.mark.cluster
@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize(
    ("where", "later_ns", "same"),
    [("disk", 0, True), ("disk", 1, False), ("bucket", 999_000_000, True), ("bucket", 10**9, False)],
)
def test_times_of_objects_are_whole_seconds(tmp_path: Path, where: str, later_ns: int, same: bool) -> None:
    """MinIO and Ceph give fractions when they list an object, but not when they are asked about it."""
    make_bucket("times")
    place = locate({"disk": f"{tmp_path}/v.mp4", "bucket": "s3://times/v.mp4"}[where])
    write_text(place, "video")
    source = Source(video_id="v", path=place)
    before = source_file(source)
    before = before.model_copy(update={"mtime_ns": before.mtime_ns + later_ns})
    assert is_same_file(before, source) == same
