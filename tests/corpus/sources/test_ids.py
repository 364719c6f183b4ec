"""Ids come from file names, and names are read back from the right."""

import os
from pathlib import Path

import pytest

from hico_core.corpus.sources.finding import unique_sources
from hico_core.corpus.sources.ids import Source, clip_name, parse_clip_name, video_id

IDS = {
    "v_GGSY1Qvo990.mp4": "GGSY1Qvo990",
    "v_v_x.mp4": "v_x",  # one prefix only
    "-abc.mp4": "-abc",
    "arm wrestling.mp4": "arm wrestling",
    "a_0000000_0005000.mp4": "a_0000000_0005000",  # looks like a clip's name
    "ünïcode, 動画.webm": "ünïcode, 動画",
    "two.dots.mkv": "two.dots",
}


@pytest.mark.parametrize(("name", "expected"), IDS.items())
def test_video_id(name: str, expected: str) -> None:
    assert video_id(Path("/videos") / name) == expected
    clip = clip_name(expected, start_ms=5000, end_ms=10000)
    parsed = parse_clip_name(clip)
    assert parsed == (expected, 5000, 10000)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("v_.mp4", "no video id can be made"),
        ("line\nbreak.mp4", "a line break"),
        ("tab\t.mp4", "control character"),
        ("u\u2028.mp4", "a line break"),
        (os.fsdecode(b"latin-\xe9.mp4"), "is not UTF-8"),
        ("x" * 251 + ".mp4", "an id may have at most 250 bytes, this has 251"),
        ("no\xa0break \u202f \u202e.mp4", None),  # spaces of macOS' screen recordings, another direction of writing
        ("x" * 250 + ".mp4", None),
        ("x" * 250 + ".webm.mp4", "an id may have at most 250 bytes"),
        ("x" * 256 + "/a.mp4", "its path is too long"),
        ("x/" * 2100 + "a.mp4", "its path is too long"),
    ],
)
def test_names_that_cannot_be_used(name: str, why: str | None) -> None:
    """One odd name is one failure, told later; the others are found."""
    path = Path("/videos") / name
    odd, other = unique_sources(
        [Source(video_id=video_id(path), path=path), Source(video_id="~", path=Path("/videos/~.mp4"))]
    )
    assert other.obstacle is None
    told = odd.obstacle or ""
    assert not told if why is None else why in told and ("rename the file" in told or "path" in told)


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("/data/d1/v_0001.mp4", "/data", "d1-0001"),
        ("/data/d1/sub/0001.mp4", "/data/", "d1-sub-0001"),
        ("/data/0001.mp4", "/data", "0001"),
        ("/database/0001.mp4", "/data", "0001"),  # not below it, though its name begins alike
    ],
)
def test_folders_in_ids(path: str, base: str, expected: str) -> None:
    assert video_id(Path(path), rule="relpath", base=Path(base)) == expected
    assert video_id(Path(path), base=Path(base)) == "0001"


def test_clip_names() -> None:
    assert clip_name("--0edUL8zmA", start_ms=90000, end_ms=92120) == "v_--0edUL8zmA_0090000_0092120.mp4"
    assert clip_name("x", start_ms=10_000_000, end_ms=10_005_000) == "v_x_10000000_10005000.mp4"
    assert parse_clip_name("v_x_10000000_10005000.mp4") == ("x", 10_000_000, 10_005_000)
    for other in ("x_0000000_0005000.mp4", "v_x_000_0005000.mp4", "v_x.mp4", "v_x_0000000_0005000.mp4.tmp"):
        assert parse_clip_name(other) is None
