"""Sound that is kept lies where it lay beside the pictures, whichever of the two began first."""

from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import run_ffmpeg

from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.encode import Job
from hico_core.corpus.clips.ffmpeg import Ffmpeg, Finished, find_ffmpeg
from hico_core.corpus.clips.making import make_clips
from hico_core.corpus.clips.probe import probe
from hico_core.corpus.clips.sound import sound_of
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions, VideoRecord, read_record

pytestmark = pytest.mark.videos

KEEP = SplitOptions(audio="keep", preset="ultrafast", short_side=64)
BEEP = 4.0  # seconds from the beginning of the sound
RATE = 16_000


def make(path: Path, *, sound_first: float, sound_seconds: float = 12.0, picture_seconds: float = 7.0) -> Path:
    """Pictures, and sound that begins so many seconds before them, with a beep of half a second."""
    picture, sound = path.with_suffix(".picture.mp4"), path.with_suffix(".sound.m4a")
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=96x64:d={picture_seconds}:r=10", "-c:v", "libx264", picture)
    beep = f"sin(2*PI*800*t)*between(t\\,{BEEP}\\,{BEEP + 0.5})"
    run_ffmpeg("-f", "lavfi", "-i", f"aevalsrc={beep}:d={sound_seconds}:s={RATE}", "-c:a", "aac", sound)
    late_picture = ("-itsoffset", str(max(sound_first, 0)))
    late_sound = ("-itsoffset", str(max(-sound_first, 0)))
    both = ("-map", "0:v", "-map", "1:a", "-c", "copy")
    run_ffmpeg(*late_picture, "-i", picture, *late_sound, "-i", sound, *both, path)
    return path


def split(video: Path, root: Path) -> VideoRecord:
    split_videos(find_sources([str(video)]), root=root, options=KEEP, workers=1)
    record = read_record(root, video.stem)
    assert record is not None
    return record


def heard(clip: Path) -> tuple[float, float, float | None]:
    """When, from a clip's first picture, its sound begins and ends, and its beep begins."""
    with av.open(str(clip)) as container:
        first = next(container.decode(video=0)).time
        assert first is not None
    with av.open(str(clip)) as container:
        frames = list(container.decode(audio=0)) if container.streams.audio else []
    if not frames:
        return 0.0, 0.0, None
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert frames[0].time is not None
    begin = frames[0].time - first
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    return begin, begin + len(samples) / RATE, begin + loud[0] / RATE if len(loud) else None


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize("sound_first", [0.0, 2.0, 0.7, -2.0, -0.5])
def test_a_beep_stays_beside_its_picture(tmp_path: Path, ending: str, sound_first: float) -> None:
    record = split(make(tmp_path / f"a.{ending}", sound_first=sound_first), tmp_path / "root")
    assert record.failure is None, record
    assert [clip.num_frames for clip in record.clips] == [50, 20]
    beeps = []
    for clip, seconds in zip(record.clips, [5.0, 2.0], strict=True):
        begin, end, beep = heard(tmp_path / "root" / clip.path)
        assert begin == pytest.approx(0, abs=0.08)
        assert end == pytest.approx(seconds, abs=0.08)
        beeps += [clip.start_ms / 1000 + beep] if beep is not None else []
    assert beeps == [pytest.approx(BEEP - sound_first, abs=0.03)]


@pytest.mark.parametrize(("sound_seconds", "lengths"), [(3.0, [3.0, 0.0]), (6.0, [5.0, 1.0])])
def test_sound_that_ends_first_does_not_end_the_picture(
    tmp_path: Path, sound_seconds: float, lengths: list[float]
) -> None:
    record = split(make(tmp_path / "a.mp4", sound_first=0, sound_seconds=sound_seconds), tmp_path / "root")
    assert record.failure is None, record
    assert [clip.num_frames for clip in record.clips] == [50, 20]
    ends = [heard(tmp_path / "root" / clip.path)[1] for clip in record.clips]
    assert ends == pytest.approx(lengths, abs=0.15)


def test_a_video_without_sound_has_clips_without_sound(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:d=2:r=10", tmp_path / "a.mp4")
    assert sound_of(tmp_path / "a.mp4", probe(tmp_path / "a.mp4")) is None
    record = split(tmp_path / "a.mp4", tmp_path / "root")
    assert record.failure is None
    assert [clip.num_frames for clip in record.clips] == [20]


class DeafFfmpeg(Ffmpeg):
    """The real program, which does to the sound what it was not told."""

    def __init__(self, says: str, instead: str) -> None:
        super().__init__(find_ffmpeg())
        self._says, self._instead = says, instead

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        told = [argument.replace(self._says, self._instead) for argument in arguments]
        assert told != arguments
        return super().run(told, cwd=cwd, deadline=deadline, output=output)


@pytest.mark.parametrize(
    ("says", "instead", "words"),
    [
        ("atrim=end=7", "atrim=end=6", "its clip at 5 s has 1.* s of sound instead of 2"),
        (
            "aresample=async=1:first_pts=0",
            "atrim=start=0.5",
            "its clip at 0 s has sound that starts at 0.* s instead of",
        ),
    ],
    ids=["too short", "too late"],
)
def test_clips_are_checked_by_their_sound(tmp_path: Path, says: str, instead: str, words: str) -> None:
    video = make(tmp_path / "a.mp4", sound_first=0)
    (tmp_path / "clips").mkdir()
    with pytest.raises(BadVideo, match=words):
        program = DeafFfmpeg(says, instead)
        job = Job(source=video, options=KEEP, program=program, folder=tmp_path / "clips", deadline=None)
        make_clips(job, on_corrupt="fail", verify="fast")
