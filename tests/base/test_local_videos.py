"""A video that cannot be had is a bad video, whatever the reason; a full disk is not its fault."""

from contextlib import AbstractContextManager
from pathlib import Path

import boto3
import pytest
from buckets import make_bucket, put_denied
from full_disks import files_of_at_most

from hico_core.base.addresses import locate
from hico_core.base.cache import LocalCache
from hico_core.base.errors import BadVideo, NoRoom
from hico_core.base.local_videos import fetched_video, local_video


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.mp4", "no such file"),
        ("a.mp4", "has 3 bytes instead of 5"),
        ("loop.mp4", r"cannot be fetched \(Too many levels of symbolic links\)"),
    ],
)
def test_files(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(BadVideo, match=f"{name}: {said}"), local_video(tmp_path / name, size_bytes=5):
        pass


@pytest.mark.usefixtures("buckets")
def test_objects(tmp_path: Path) -> None:
    make_bucket("rooms")
    boto3.client("s3").put_object(Bucket="rooms", Key="a.mp4", Body=bytes(100_000))
    put_denied("rooms", "denied.mp4", b"")
    cache = LocalCache(tmp_path / "cache", size_bytes=10**6)

    def at(name: str) -> list[AbstractContextManager[Path]]:
        place = locate(f"s3://rooms/{name}", cache)
        return [local_video(place), fetched_video(place, tmp_path)]

    for name, said in {"denied.mp4": r"cannot be fetched \(", "none.mp4": "no such file"}.items():
        for video in at(name):
            with pytest.raises(BadVideo, match=f"{name}: {said}"), video:
                pass
    for video, error in zip(at("a.mp4"), (NoRoom, OSError), strict=True):
        with files_of_at_most(1000), pytest.raises(error, match="File too large"), video:
            pass
