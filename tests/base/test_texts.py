"""Texts are read as editors and spreadsheets save them, whatever they are for."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hico_core.base.errors import UsageError
from hico_core.base.texts import read_text
from hico_core.config import load_config
from hico_core.config.authors.yaml_layers import content_of_ours
from hico_core.corpus.sources.benchmark_lists import read_split
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.lists import labelled_videos, listed_clips
from hico_core.transfer.localisation.annotations import read_segments


def plain(text: str) -> bytes:
    return text.encode()


def with_mark(text: str) -> bytes:
    return codecs.BOM_UTF8 + text.encode()


def windows(text: str) -> bytes:
    return codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()


def old_mac(text: str) -> bytes:
    return text.replace("\n", "\r").encode()


def powershell(text: str) -> bytes:
    return codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le")


def big_endian(text: str) -> bytes:
    return codecs.BOM_UTF16_BE + text.encode("utf-16-be")


def ids_of_split(path: Path) -> list[str]:
    return [video.video_id for video in read_split(str(path), data_root=path.parent, subset="train").videos]


# What a person hands over: a name, its text, and what is read from it.
READERS: dict[str, tuple[str, str, Callable[[Path], object], object]] = {
    "videos": ("list.txt", "é.mp4\nb.mp4\n", lambda path: [s.video_id for s in find_sources([str(path)])], ["b", "é"]),
    "labels": (
        "list.txt",
        "é.mp4\tlong jump\nb.mp4\tbow\n",
        lambda path: [(s.video_id, s.class_name) for s in labelled_videos(path, data_root=path.parent)],
        [("b", "bow"), ("é", "long jump")],
    ),
    "clips": (
        "training.txt",
        "a,0000000,0005000\nb,0000000,0005000\n",
        lambda path: [source.video_id for source in listed_clips(path, data_root=path.parent)],
        ["a", "b"],
    ),
    "kinetics": (
        "val.csv",
        "label,youtube_id,time_start,time_end\nzumba,é,3,13\nbow,b,10,20\n",
        ids_of_split,
        ["b_000010_000020", "é_000003_000013"],
    ),
    "ucf": ("trainlist01.txt", "Apply/v_é.avi 1\nBow/v_b.avi 2\n", ids_of_split, ["b", "é"]),
    "hmdb": (
        "run_test_split1.txt",
        "é.avi 1\nb.avi 1\n",
        lambda path: ids_of_split(path.with_name("*_test_split1.txt")),
        ["b", "é"],
    ),
    "activitynet": (
        "ann.json",
        json.dumps({"database": {"é": {"subset": "training", "annotations": []}}}, ensure_ascii=False, indent=1),
        lambda path: list(read_segments(path).videos),
        ["é"],
    ),
    "segments": (
        "segments.csv",
        "video,start,end,label\né,0,1,jump\n",
        lambda path: list(read_segments(path).videos),
        ["é"],
    ),
    "config": ("own.yaml", "train:\n  seed: 7\n", lambda path: load_config(path).train.seed, 7),
    "authors": ("theirs.yaml", "TRAIN:\n  ENABLE: true\n", content_of_ours, None),
}


@pytest.mark.parametrize("encode", [plain, with_mark, windows, old_mac, powershell, big_endian])
@pytest.mark.parametrize("name", READERS)
def test_every_text_of_a_user(name: str, encode: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "v_a_0000000_0005000.mp4").touch()
    (tmp_path / "classInd.txt").write_bytes(encode("1 Apply\n2 Bow\n"))
    file_name, text, read, expected = READERS[name]
    (tmp_path / file_name).write_bytes(encode(text))
    assert read(tmp_path / file_name) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: caf\xe9\n", r"x\.yaml, line 2: is not UTF-8 text \(byte 0xe9\); save the file as UTF-8"),
        (b"a: 1\r\rb: caf\xe9\n", "line 3: is not UTF-8"),
        ("a: 1\nb: 2\n".encode("utf-16-le"), "line 1: contains a NUL byte"),  # no mark
        ("a: 1\n".encode("utf-32"), "line 1: contains a NUL byte"),
        (codecs.BOM_UTF16_LE + b"a\0b", "is not UTF-16 text"),
        (b"a: 1\nb: \0\n", "line 2: contains a NUL byte"),
    ],
)
def test_other_encodings_are_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        load_config(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_texts_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_text(path)
