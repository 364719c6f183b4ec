"""A workspace in a bucket holds what a local one holds, and is read through a cache that stays small."""

import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest
import torch
from buckets import keys_in, make_bucket
from full_disks import files_of_at_most
from made_videos import numbered_video
from other_users import not_as_root
from upath import UPath

from hico_core.base.addresses import BucketPath, Location, locate, require_reachable
from hico_core.base.cache import LocalCache, default_cache_folder, fetch
from hico_core.base.errors import HicoError, NoRoom, UsageError
from hico_core.base.storage import local_copy, publish, write_text
from hico_core.base.tally import Summary
from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.index import build_index, read_index, read_index_table
from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.check import check_files
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions
from hico_core.data.dataset import ClipDataset, ClipRequest
from hico_core.data.videos import IndexedVideos

SMALL = SplitOptions(short_side=96, preset="ultrafast")


pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("buckets")]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    name = f"b{abs(hash(request.node.name))}"
    make_bucket(name)
    return name


def put(address: str, content: bytes) -> None:
    place = locate(address)
    assert isinstance(place, BucketPath)
    place.address.write_bytes(content)


def test_places() -> None:
    assert locate("/a/b") == Path("/a/b") and locate(Path("c")) == Path("c")
    place = locate("s3://bucket/a b/c")
    assert str(place / "d.mp4") == "s3://bucket/a b/c/d.mp4"
    with pytest.raises(UsageError, match="gs:// is not supported; use a local path or one of s3://, oss://"):
        locate("gs://bucket")


class _EmptyBucket(BaseHTTPRequestHandler):
    """Answers requests for listings of `bucket` as a server of oss:// does, and no others."""

    def do_GET(self) -> None:
        is_listing = self.path.startswith("/bucket/?prefix=")
        listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        answer = listing if is_listing else b"<Error><Code>AccessDenied</Code></Error>"
        self.send_response(200 if is_listing else 403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.filterwarnings("ignore")  # of its packages' own
def test_oss_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as there is no real server: the address is understood, the driver made, and a new folder reached."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyBucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OSS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        try:
            place = locate("oss://bucket/folder/v.mp4")
            assert not isinstance(place, Path)
            assert place.key.strip("/") == "bucket/folder/v.mp4" and place.name == "v.mp4"
            assert type(place.filesystem).__name__ == "OSSFileSystem"
            require_reachable(place)
        finally:
            server.shutdown()
            thread.join()


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hico_core.base.errors.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package s3fs: pip install '\.\[s3\]'"):
        locate("s3://bucket")


@pytest.mark.parametrize(
    ("name", "refusal"),
    [("mine", None), ("mine/v.mp4", None), ("mine/[1]", None), ("mine/later", None)]
    + [(name, "cannot be reached .*; check the address and the credentials") for name in ("", "other", "other/later")],
)
def test_credentials_may_be_limited_to_a_folder(bucket: str, name: str, refusal: str | None) -> None:
    put(f"s3://{bucket}/mine/v.mp4", b"video")
    put(f"s3://{bucket}/mine/[1]/v.mp4", b"video")
    place = locate(f"s3://{bucket}/{name}")
    assert isinstance(place, BucketPath)
    with limited_to(place, "mine/"), pytest.raises(HicoError, match=refusal) if refusal else nullcontext():
        require_reachable(place)


@contextmanager
def limited_to(place: BucketPath, prefix: str) -> Iterator[None]:
    """Refuse requests for anything outside a folder of the bucket, as a server does by the policies of its users."""

    def check(params: dict[str, Any], **kwargs: object) -> None:
        asked = {**params.get("query_string", {}), "path": params["url_path"]}
        if not (asked.get("prefix", "").startswith(prefix) or f"/{prefix}" in asked["path"]):
            raise PermissionError("Access Denied")

    events = place.filesystem.s3.meta.events
    events.register("before-call.s3", check)
    try:
        yield
    finally:
        events.unregister("before-call.s3", check)


def test_files_come_and_go_whole(bucket: str, tmp_path: Path) -> None:
    root = locate(f"s3://{bucket}/root")
    write_text(root / "a.txt", "häuser\n")
    (tmp_path / "b").write_bytes(b"clip")
    publish(tmp_path / "b", root / "train/b.mp4")
    assert keys_in(bucket) == {"root/a.txt": "häuser\n".encode(), "root/train/b.mp4": b"clip"}
    assert not (tmp_path / "b").exists()
    fetch(UPath(str(root / "train/b.mp4")), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"clip"


def split(inputs: str, root: Location, folder: Path) -> Summary:
    return split_videos(
        find_sources([inputs]),
        root=root,
        options=SMALL,
        workers=2,
        on_event=lambda event: None,
        policy=SplitPolicy(rules=Rules(checksum=True), cache_folder=folder / "cache"),
    )


def test_a_bucket_that_is_not_there_is_told_from_an_empty_one(bucket: str) -> None:
    for name in ("", "/root", "/a/b"):
        require_reachable(locate(f"s3://{bucket}{name}"))
        with pytest.raises(HicoError, match="no such bucket, 'nowhere'"):
            require_reachable(locate(f"s3://nowhere{name}"))


@pytest.mark.videos
def test_a_workspace_in_a_bucket_is_that_of_a_disk(bucket: str, tmp_path: Path) -> None:
    videos, local = tmp_path / "videos", tmp_path / "local"
    videos.mkdir()
    numbered_video(videos / "v_-a.mp4", seconds=7)
    numbered_video(videos / "b 1.mkv", seconds=6, fps="25")
    (videos / "broken.mp4").write_text("no video")
    for path in videos.iterdir():
        put(f"s3://{bucket}/in/{path.name}", path.read_bytes())
    remote = locate(f"s3://{bucket}/root")

    split(str(videos), local, tmp_path)
    first = split(f"s3://{bucket}/in", remote, tmp_path)
    assert (first.num_done, first.num_failed) == (2, 1)
    assert split(f"s3://{bucket}/in/*", remote, tmp_path).num_unchanged == 2
    assert split(f"s3://{bucket}/in/b 1.mkv", remote, tmp_path).num_unchanged == 1
    assert not list((tmp_path / "cache/split").iterdir())

    found = keys_in(bucket)
    clips = {path.name: path.read_bytes() for path in (local / "train").iterdir()}
    assert {k.removeprefix("root/train/"): v for k, v in found.items() if k.startswith("root/train/")} == clips
    assert b"broken.mp4" in found["root/failures.jsonl"]
    assert sum(key.startswith("root/records/") for key in found) == 3

    build_index(local)
    assert build_index(remote).num_clips == 4
    here, there = read_index(local), read_index(f"s3://{bucket}/root")
    same = [column for column in here if column != "source"]
    assert here[same].equals(there[same])
    assert keys_in(bucket)["root/training.txt"] == (local / "training.txt").read_bytes()

    assert list(check_files(remote)) == []
    (remote / here["path"][0]).unlink()
    assert [(d.kind, d.path) for d in check_files(remote)] == [("missing", f"s3://{bucket}/root/{here['path'][0]}")]


@pytest.mark.videos
def test_training_reads_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=12)
    numbered_video(tmp_path / "b.mp4", seconds=8)
    local, remote = tmp_path / "local", locate(f"s3://{bucket}/root")
    in_place = locate(f"s3://{bucket}/in place")
    for name in ("a.mp4", "b.mp4"):
        put(f"s3://{bucket}/in/{name}", (tmp_path / name).read_bytes())
    for root in (local, remote):
        split(str(tmp_path / "*.mp4"), root, tmp_path)
        build_index(root)
    cache_folder = tmp_path / "clips"
    add_untrimmed(
        find_sources([f"s3://{bucket}/in"]),
        root=in_place,
        options=UntrimmedOptions(),
        workers=1,
        on_event=lambda event: None,
    )
    build_index(in_place)

    def samples(root: Location) -> list[torch.Tensor]:
        videos = IndexedVideos(read_index_table(root), root=root, subset="train")
        data = DataConfig(crop_size=32, cache_dir=str(cache_folder), cache_gb=1)
        dataset = ClipDataset(videos, data=data, sampling=SamplingConfig(), augment=AugmentConfig())
        found = [dataset[ClipRequest(video, seed, 0.5)] for video in (0, 1) for seed in (1, 2)]
        assert not any(sample.unusable for sample in found)
        return [crop for sample in found for crop in sample.crops]

    for one, other in zip(samples(local), samples(remote), strict=True):
        assert torch.equal(one, other)
    assert len(samples(in_place)) == len(samples(local)) == 12


def objects(bucket: str, count: int, size: int) -> list[UPath]:
    places = [UPath(f"s3://{bucket}/{i}.bin") for i in range(count)]
    for i, place in enumerate(places):
        place.write_bytes(bytes([i]) * size)
    return places


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_the_cache_stays_small_and_keeps_what_is_used(bucket: str, tmp_path: Path) -> None:
    places = objects(bucket, 20, 1000)
    cache = LocalCache(tmp_path, size_bytes=10_000)
    inodes = set()
    for i, place in enumerate(places):
        with cache.local(place, size_bytes=1000) as path:
            assert path.read_bytes() == bytes([i]) * 1000
        with cache.local(places[0]) as first:
            inodes.add(first.stat().st_ino)
        assert used(tmp_path) <= 11_000
    assert len(inodes) == 1, "what is used all the time is not fetched again"


def test_what_is_in_use_is_not_deleted(bucket: str, tmp_path: Path) -> None:
    places = objects(bucket, 20, 1000)
    cache = LocalCache(tmp_path, size_bytes=3_000)
    (tmp_path / "split").mkdir()  # where clips for a bucket are made
    os.utime(tmp_path / "split", (0, 0))
    with cache.local(places[0]) as held:
        os.utime(held, (1, 1))  # the one used longest ago
        for place in places[1:]:
            with LocalCache(tmp_path, size_bytes=3_000).local(place):
                pass
        assert held.read_bytes() == bytes(1000)


def test_many_readers_share_a_cache(bucket: str, tmp_path: Path) -> None:
    places = objects(bucket, 10, 1000)
    wrong: list[str] = []

    def read(seed: int) -> None:
        cache = LocalCache(tmp_path, size_bytes=4_000)
        for step in range(60):
            i = (7 * step + seed) % 10
            with cache.local(places[i], size_bytes=1000) as path:
                if path.read_bytes() != bytes([i]) * 1000:
                    wrong.append(f"{seed} {step}")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert used(tmp_path) <= 8_000


def test_a_cache_smaller_than_a_file_holds_that_file(bucket: str, tmp_path: Path) -> None:
    for place in objects(bucket, 2, 1000):
        with LocalCache(tmp_path, size_bytes=1).local(place) as path:
            assert used(tmp_path) == path.stat().st_size == 1000


def test_copies_on_nfs_are_deleted_too(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS makes a lock of one process alone only on a file that is open for writing."""
    lock_here = fcntl.flock

    def lock(opened: IO[bytes], operation: int) -> None:
        if operation & fcntl.LOCK_EX and not opened.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock_here(opened, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    for place in objects(bucket, 5, 1000):
        with LocalCache(tmp_path, size_bytes=2_000).local(place):
            pass
    assert used(tmp_path) <= 2_000


def test_users_share_a_cache(bucket: str) -> None:
    """In a folder such as /tmp, where each deletes only what is theirs; what others made is read, and stays."""
    places = objects(bucket, 3, 1000)
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        with LocalCache(folder, size_bytes=10**6).local(places[0]) as path:
            assert path.stat().st_mode & 0o777 == 0o666 & ~usual_mask()
        path.chmod(0o444)  # so that its owner may not write it either
        with not_as_root():
            for place in places:
                with LocalCache(folder, size_bytes=1).local(place) as copy:
                    assert len(copy.read_bytes()) == 1000
            assert os.geteuid() == path.stat().st_uid or path.exists()


def usual_mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_on_a_full_disk_the_copies_that_nobody_uses_go(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = objects(bucket, 3, 1000)
    cache = LocalCache(tmp_path, size_bytes=10**6)
    with cache.local(places[0]) as held:
        with cache.local(places[1]) as unused:
            pass
        monkeypatch.setenv("HICO_FAULT", "cache.fetch=ENOSPC")
        with cache.local(places[2]) as fetched:
            assert fetched.read_bytes() == bytes([2]) * 1000
        assert held.exists() and not unused.exists()
    assert "No space left on device; deleting unused copies" in caplog.text


def test_a_full_disk_is_the_fault_of_no_video(bucket: str, tmp_path: Path) -> None:
    """A real limit of the system: files may grow to 500 bytes only."""
    (place,) = objects(bucket, 1, 1000)
    with (
        files_of_at_most(500),
        pytest.raises(NoRoom, match="File too large; free some space, and the same command continues"),
        local_copy(locate(str(place), LocalCache(tmp_path, size_bytes=10**6))),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"other", b"longer"], ids=["same size", "other size"])
def test_an_object_that_was_overwritten_is_fetched_again(bucket: str, tmp_path: Path, content: bytes) -> None:
    """Whatever its size: when it is inspected, and then by whoever reads what was inspected."""
    place, cache = UPath(f"s3://{bucket}/v.mp4"), LocalCache(tmp_path, size_bytes=10**6)

    def read(size_bytes: int | None) -> bytes:
        with cache.local(place, size_bytes=size_bytes) as path:
            return path.read_bytes()

    for written in (b"first", content):
        place.write_bytes(written)
        assert read(None) == read(len(written)) == written
    place.unlink()
    assert read(len(content)) == content, "files that the index describes are read without requests"


def test_an_object_of_another_size_is_not_taken(bucket: str, tmp_path: Path) -> None:
    """Nor is its copy, once the object has its size again."""
    (place,) = objects(bucket, 1, 10)
    with (
        pytest.raises(HicoError, match="has 10 bytes instead of 11"),
        LocalCache(tmp_path, size_bytes=10**6).local(place, size_bytes=11),
    ):
        pass
    place.write_bytes(b"as it was  ")
    with LocalCache(tmp_path, size_bytes=10**6).local(place, size_bytes=11) as path:
        assert path.read_bytes() == b"as it was  "
    with pytest.raises(FileNotFoundError), LocalCache(tmp_path, size_bytes=10**6).local(UPath(f"s3://{bucket}/none")):
        pass


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number that nobody has."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert default_cache_folder() == Path(tempfile.gettempdir()) / f"hico-{os.getuid()}"
