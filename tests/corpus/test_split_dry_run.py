"""A dry run measures some videos, foretells all of them, and writes nothing."""

from pathlib import Path

import pytest
from made_videos import numbered_video
from trees import tree

from hico_core.base.errors import HicoError
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.split_dry_run import SplitPlan, dry_run_split, sample_by_size
from hico_core.corpus.workspace.access import Shard
from hico_core.corpus.workspace.records import SplitOptions

OPTIONS = SplitOptions(short_side=96, preset="ultrafast", crf=10)


def dry_run(sources: list[Source], root: Path) -> SplitPlan:
    return dry_run_split(sources, root=root, options=OPTIONS, policy=SplitPolicy(), workers=1)


@pytest.mark.videos
def test_what_it_foretells_comes_true(tmp_path: Path) -> None:
    for number in range(6):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=4 + number)
    (tmp_path / "videos/x-broken.mp4").write_text("no video")
    sources = find_sources([str(tmp_path / "videos")])
    root = tmp_path / "root"
    unusable = Source(video_id="", path=tmp_path / "v_.mp4", obstacle="no video id can be made from its file name")
    plan = dry_run([*sources, unusable], root)
    assert not root.exists()
    assert (plan.num_videos, plan.num_unchanged, plan.num_unusable, plan.num_sampled) == (7, 0, 1, 2)
    assert plan.hours > 0

    split_videos(sources[:6], root=root, options=OPTIONS)
    clips = [path.stat().st_size for path in (root / "train").iterdir()]
    assert plan.clip_bytes == pytest.approx(sum(clips), rel=0.3)
    assert plan.minutes == pytest.approx(sum(4 + number for number in range(6)) / 60, rel=0.3)
    before = tree(root)
    again = dry_run(sources[:6], root)
    assert (again.num_videos, again.num_unchanged, again.num_sampled, again.hours) == (0, 6, 0, 0.0)
    assert tree(root) == before


@pytest.mark.videos
def test_a_shard_foretells_its_own_part(tmp_path: Path) -> None:
    for number in range(4):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=3)
    sources, workers = find_sources([str(tmp_path / "videos")]), 1
    parts = []
    for shard in (Shard(1, 2), Shard(2, 2)):
        policy = SplitPolicy(shard=shard)
        plan = dry_run_split(sources, root=tmp_path / "root", options=OPTIONS, policy=policy, workers=workers)
        assert plan.num_videos == sum(shard.has(source.video_id) for source in sources)
        parts.append(plan.num_videos)
    assert sum(parts) == 4


@pytest.mark.videos
def test_a_sample_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    missing = Source(video_id="missing", path=tmp_path / "missing.mp4")
    for source in (missing, Source(video_id="broken", path=tmp_path / "broken.mp4")):
        with pytest.raises(HicoError, match=rf"none of 1 sampled videos can be split; the first: .*{source.video_id}"):
            dry_run([source], tmp_path / "root")


@pytest.mark.parametrize(("count", "expected"), [(1, ["a"]), (2, ["a", "b"]), (9, ["a", "b", "c"])])
def test_the_sample_is_of_the_smaller_half(tmp_path: Path, count: int, expected: list[str]) -> None:
    sources = []
    for size, name in enumerate("abcde"):
        (tmp_path / name).write_bytes(b"x" * size)
        sources.append(Source(video_id=name, path=tmp_path / name))
    assert [source.video_id for source in sample_by_size(sources, count)] == expected
