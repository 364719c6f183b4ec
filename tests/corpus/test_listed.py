"""What comes into a workspace without being split: which road a list takes, and when the authors' data are indexed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from made_videos import numbered_video

from hico_core.base.cache import local_cache
from hico_core.base.errors import UsageError
from hico_core.base.tally import VideoEvent
from hico_core.config import DataConfig
from hico_core.corpus.index import read_index
from hico_core.corpus.listed import Indexing, VideoWork, add_listed, add_their_data
from hico_core.corpus.sources.lists import CorpusList


class Theirs(NamedTuple):
    data_root: str | None
    anno_dir: str | None


class Progress:
    """Notes what work was begun, on how many videos, and what became of each."""

    def __init__(self) -> None:
        self.begun: list[tuple[VideoWork, int]] = []
        self.outcomes: list[str] = []

    @contextmanager
    def __call__(self, work: VideoWork, num_videos: int) -> Iterator[Callable[[VideoEvent], None]]:
        self.begun.append((work, num_videos))
        yield lambda event: self.outcomes.append(event.outcome)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, and clips of one in the authors' naming, each with their list."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("a", "b"):
        numbered_video(folder / f"{name}.mp4", seconds=3)
    numbered_video(folder / "training/v_c_0000000_0003000.mp4", seconds=3)
    (folder / "labelled.txt").write_text("a.mp4 0\nb.mp4 1\ngone.mp4 1\n")
    (folder / "training.txt").write_text("c,0000000,0003000\n")
    return folder


@pytest.mark.videos
@pytest.mark.parametrize(
    ("name", "begun", "num_failed"),
    [("labelled.txt", [("index", 3)], 1), ("training.txt", [("adopt", 1)], 0)],
)
def test_a_list_takes_the_road_of_what_it_names(
    name: str, begun: list[tuple[VideoWork, int]], num_failed: int, data: Path, tmp_path: Path
) -> None:
    progress = Progress()
    to = Indexing(root=tmp_path, workers=1, cache=local_cache())
    assert add_listed(str(data / name), data, to=to, progress=progress) == num_failed
    assert progress.begun == begun
    assert sorted(progress.outcomes) == ["done"] * (begun[0][1] - num_failed) + ["failed"] * num_failed


@pytest.mark.videos
def test_their_data_are_indexed_unless_there_is_an_index_and_no_folder_is_named(data: Path, tmp_path: Path) -> None:
    asked: list[tuple[Path | None, Path | None]] = []

    def find(folder: object, lists: object) -> dict[str, CorpusList]:
        asked.append((folder, lists))  # type: ignore[arg-type]
        return {"train": CorpusList(data / "training.txt", data)}

    def add(theirs: Theirs, *, data_root: str | None, anno_dir: str | None) -> int:
        return add_their_data(
            theirs,
            tmp_path,
            data=DataConfig(),
            data_root=data_root,
            anno_dir=anno_dir,
            find=find,  # type: ignore[arg-type]
            progress=Progress(),
        )

    with pytest.raises(UsageError, match=r"--data-root: needed, because the file has no DATA\.DATA_ROOT_DIR"):
        add(Theirs(None, None), data_root=None, anno_dir=None)
    assert add(Theirs("theirs", "lists"), data_root=None, anno_dir=None) == 0
    assert list(read_index(tmp_path)["video_id"]) == ["c"]
    add(Theirs("theirs", "lists"), data_root=None, anno_dir=None)  # the index is there
    add(Theirs("theirs", "lists"), data_root="mine", anno_dir=None)  # their lists go with their folder
    add(Theirs("theirs", "lists"), data_root="mine", anno_dir="my-lists")
    assert asked == [
        (Path("theirs"), Path("lists")),
        (Path("mine"), None),
        (Path("mine"), Path("my-lists")),
    ]
