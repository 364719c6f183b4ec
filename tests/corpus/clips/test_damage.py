"""Damage is noticed wherever it lies: in a source that ffmpeg conceals, in a clip, on the disk."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import numbered_video, painted_number, run_ffmpeg

from hico_core.base.choices import KeepOrDrop
from hico_core.base.errors import BadVideo, HicoError
from hico_core.corpus.clips.damage import damaged_timestamps, good_clips
from hico_core.corpus.clips.encode import Job, require_encoder
from hico_core.corpus.clips.ffmpeg import Ffmpeg, Finished, find_ffmpeg
from hico_core.corpus.clips.making import make_clips
from hico_core.corpus.clips.plan import plan_clips
from hico_core.corpus.clips.probe import Packet, probe
from hico_core.corpus.clips.verify import check_clips
from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.records import PROFILES, SplitOptions, VideoRecord, read_record

pytestmark = pytest.mark.videos

SMALL = SplitOptions(short_side=96, preset="ultrafast", crf=10)


def decoding_order(text: str) -> list[Packet]:
    """'I0 P3 B1 B2' -> packets in the order in which they are decoded, with the times at which they are shown."""
    return [Packet(int(word[1:]), i, word[0] == "I") for i, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("lost", "suspect"),
    [
        ([], []),
        ([4], [4, 5, 6, 7, 8, 9]),  # a B frame: all that is decoded after it, as we do not know who refers to it
        ([6], [4, 5, 6, 7, 8, 9]),  # the B frames before it are decoded after it
        ([10], [7, 8, 10, 11, 12, 13]),  # those that lead up to the next keyframe go with their own group
        ([3], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ([13], [13]),
        ([9], [7, 8, 9, 10, 11, 12, 13]),  # a keyframe
    ],
)
def test_what_is_built_on_a_lost_frame_is_suspect(lost: list[int], suspect: list[int]) -> None:
    packets = decoding_order("I0 P3 B1 B2 P6 B4 B5 I9 B7 B8 P12 B10 B11 P13")
    decoded = {packet.pts for packet in packets} - set(lost)
    found = damaged_timestamps(packets, decoded)
    assert set(lost) <= found
    # The slow twin: whatever is decoded between the loss and the next keyframe, and what leads up to that keyframe.
    assert sorted(found) == sorted(twin(packets, set(lost)))


def twin(packets: list[Packet], lost: set[int]) -> set[int]:
    found = set(lost)
    for i, packet in enumerate(packets):
        if packet.pts not in lost:
            continue
        for j in range(i, len(packets)):
            if j > i and packets[j].is_keyframe:
                found |= {later.pts for later in _until_keyframe(packets, j) if later.pts < packets[j].pts}
                break
            found.add(packets[j].pts)
    return found


def _until_keyframe(packets: list[Packet], start: int) -> list[Packet]:
    end = next((k for k in range(start + 1, len(packets)) if packets[k].is_keyframe), len(packets))
    return packets[start:end]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s with a keyframe each second, and noise over some pictures between 7 and 8 s."""
    path = tmp_path_factory.mktemp("damaged") / "a.mp4"
    numbered_video(
        path,
        seconds=20,
        size="320x240",
        before=("-f", "lavfi", "-i", "testsrc2=s=320x240"),
        output=("-map", "0:v", "-c:v", "libx264", "-crf", "10", "-g", "30", "-bf", "2"),
    )
    make_noise(path, 7.2, 7.6)
    return path


def make_noise(path: Path, start: float, end: float) -> None:
    """Overwrite the pictures between two times, in seconds."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(p.pos, p.size) for p in packets if p.pts is not None and start < p.pts * p.time_base < end]
    data = bytearray(path.read_bytes())
    rng = random.Random(0)
    for place, size in places:
        assert place is not None
        data[place + 8 : place + size] = rng.randbytes(size - 8)
    path.write_bytes(data)


def split(path: Path, root: Path, policy: SplitPolicy, options: SplitOptions = SMALL) -> VideoRecord:
    split_videos(
        find_sources([str(path)]), root=root, options=options, workers=1, on_event=lambda event: None, policy=policy
    )
    record = read_record(root, path.stem)
    assert record is not None
    return record


def test_a_damaged_video_is_skipped(damaged: Path, tmp_path: Path) -> None:
    record = split(damaged, tmp_path, SplitPolicy(on_corrupt="skip"))
    assert record.failure is not None and record.failure.stage == "decode"
    assert "decoding error" in record.failure.error
    assert record.failure.stderr_tail
    assert not list((tmp_path / "train").iterdir())


def test_a_damaged_video_ends_the_command(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"a\.mp4: is damaged.*--on-corrupt skip"):
        split(damaged, tmp_path, SplitPolicy(on_corrupt="fail"))
    assert read_record(tmp_path, "a") is None, "so that the next run ends there again"


@pytest.mark.parametrize("fps", [None, 15.0])
def test_the_good_clips_are_kept(damaged: Path, tmp_path: Path, fps: float | None) -> None:
    record = split(damaged, tmp_path, SplitPolicy(on_corrupt="keep-good"), SMALL.model_copy(update={"fps": fps}))
    assert record.failure is None
    assert [clip.start_ms for clip in record.clips] == [0, 10000, 15000]
    assert record.num_damaged_clips == 1 and record.num_decode_errors > 0
    assert record.variable_fps, "so that times are taken from the files, not from counting"
    step = 1 if fps is None else 2
    for clip in record.clips:
        first = clip.start_ms * 30 // 1000
        assert shown_in(tmp_path / clip.path) == pytest.approx(list(range(first, first + 150, step)), abs=step - 1)


def shown_in(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [painted_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("fps", "good"), [(None, [0, 10000, 15000]), (15.0, [10000, 15000])])
def test_damage_at_the_beginning_moves_no_clip(
    fps: float | None, good: list[int], damaged: Path, tmp_path: Path
) -> None:
    """The first frame that decodes, where the clips begin, is not the first packet."""
    video = Path(shutil.copyfile(damaged, tmp_path / "a.mp4"))
    make_noise(video, -0.1, 0.01)
    record = split(video, tmp_path, SplitPolicy(on_corrupt="keep-good"), SMALL.model_copy(update={"fps": fps}))
    assert record.failure is None, record.failure
    assert [clip.start_ms for clip in record.clips] == good
    # The encoder begins another group of pictures at frame 4, where many bars change.
    assert [shown_in(tmp_path / clip.path)[0] for clip in record.clips] == [4 + start * 30 // 1000 for start in good]


@pytest.mark.parametrize("audio", ["drop", "keep"])
@pytest.mark.parametrize(("name", "sound"), [("a.ts", "aac"), ("a.avi", "mp2")])
def test_clips_are_kept_whatever_the_clock_of_the_container(
    name: str, sound: str, audio: KeepOrDrop, tmp_path: Path
) -> None:
    """In MPEG-TS, it begins with the streams that are read; in AVI, frames have other times than their packets."""
    video = tmp_path / name
    pictures = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=8")
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-c:a", sound)
    run_ffmpeg(*pictures, "-f", "lavfi", "-i", "sine=d=8", *encoder, video)
    data = bytearray(video.read_bytes())
    for place in range(len(data) * 3 // 8, len(data) * 3 // 8 + 2000, 188):
        data[place + 60 : place + 100] = random.Random(place).randbytes(40)
    video.write_bytes(data)
    options = SMALL.model_copy(update={"segment_seconds": 2.0, "audio": audio})
    record = split(video, tmp_path, SplitPolicy(on_corrupt="keep-good"), options)
    assert [clip.start_ms for clip in record.clips] == [0, 4000, 6000], record.failure


class BreakingFfmpeg(Ffmpeg):
    """The real program, broken off in the middle of the pass that looks for damage."""

    def __init__(self, *, stopping: bool) -> None:
        super().__init__(find_ffmpeg())
        self._stopping = stopping

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        finished = super().run(arguments, cwd=cwd, deadline=deadline, output=output)
        written = cwd / "whole.txt"
        if not written.exists():
            return finished
        written.write_text("".join(written.read_text().splitlines(keepends=True)[:100]))
        if self._stopping:
            self.stop()
        return Finished(-9, [], timed_out=not self._stopping)


@pytest.mark.parametrize(
    ("stopping", "error", "words"),
    [(False, BadVideo, "longer than `hico split --timeout` allows"), (True, HicoError, "the same command continues")],
    ids=["time-out", "stop"],
)
def test_a_search_for_damage_that_is_broken_off_drops_no_clips(
    stopping: bool, error: type[HicoError], words: str, damaged: Path, tmp_path: Path
) -> None:
    """The frames after the break were not looked at; they are not damaged."""
    with pytest.raises(error, match=words):
        program = BreakingFfmpeg(stopping=stopping)
        job = Job(source=damaged, options=SMALL, program=program, folder=tmp_path, deadline=None)
        make_clips(job, on_corrupt="keep-good", verify="fast")


@pytest.mark.parametrize(
    ("moment", "fps", "good"),
    [
        (7.0, None, [0, 10_000]),
        (4.99, None, [5000, 10_000]),
        (5.0, None, [0, 10_000]),
        # At another rate, a picture may come from a frame just across the border.
        (4.99, 15.0, [10_000]),
        (5.02, 15.0, [10_000]),
        (5.1, 15.0, [0, 10_000]),
    ],
)
def test_clips_without_a_damaged_frame(moment: float, fps: float | None, good: list[int]) -> None:
    plan = plan_clips([k / 30 for k in range(450)])
    kept = good_clips(plan, [moment], options=SMALL.model_copy(update={"fps": fps}))
    assert [clip.segment.start_ms for clip in kept] == good


def test_damage_is_found_wherever_the_clock_of_a_file_begins(damaged: Path, tmp_path: Path) -> None:
    """ffmpeg counts from the start of a file, packets from wherever their clock began."""
    run_ffmpeg("-i", damaged, "-c", "copy", "-output_ts_offset", "7", tmp_path / "a.mkv")
    record = split(tmp_path / "a.mkv", tmp_path / "root", SplitPolicy(on_corrupt="keep-good"))
    assert record.failure is None, record.failure
    assert [clip.start_ms for clip in record.clips] == [0, 10000, 15000]


def test_no_clip_is_good(damaged: Path, tmp_path: Path) -> None:
    options = SMALL.model_copy(update={"segment_seconds": 30.0})
    record = split(damaged, tmp_path, SplitPolicy(on_corrupt="keep-good"), options)
    assert record.failure is not None and "has no intact clip" in record.failure.error


class SpoilingFfmpeg(Ffmpeg):
    """The real program, after which one byte of a clip is changed: a disk that lies."""

    spoiled = False

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        finished = super().run(arguments, cwd=cwd, deadline=deadline, output=output)
        clip = cwd / "00000.mp4"
        if clip.exists() and not self.spoiled:
            data = bytearray(clip.read_bytes())
            middle = data.index(b"mdat") + 2000
            data[middle : middle + 300] = random.Random(1).randbytes(300)
            clip.write_bytes(data)
            self.spoiled = True
        return finished


def test_full_verification_decodes_each_clip(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:d=4", "-c:v", "libx264", video)

    def make(verify: str) -> None:
        folder = tmp_path / verify
        folder.mkdir()
        program = SpoilingFfmpeg(find_ffmpeg())
        job = Job(source=video, options=SMALL, program=program, folder=folder, deadline=None)
        make_clips(job, on_corrupt="skip", verify=verify)  # type: ignore[arg-type]

    make("fast")  # sees counts, times and sizes, which are as they should be
    with pytest.raises(BadVideo, match="its clip at 0 s cannot be decoded"):
        make("full")


@pytest.mark.parametrize(
    ("width", "height", "good"), [(128, 96, True), (96, 128, True), (136, 96, False), (128, 100, False)]
)
def test_a_clip_has_the_shape_of_its_source(width: int, height: int, good: bool, tmp_path: Path) -> None:
    """Sideways too, since rotation is baked in."""
    numbered_video(tmp_path / "a.mp4", seconds=1, size="160x120")
    run_ffmpeg("-i", tmp_path / "a.mp4", "-vf", f"scale={width}:{height}", "-crf", "10", tmp_path / "clip.mp4")
    info = probe(tmp_path / "a.mp4")
    seconds = info.frame_seconds
    with nullcontext() if good else pytest.raises(BadVideo, match=f"has {width}x{height} pixels; expected sides of 96"):
        check_clips(
            tmp_path / "a.mp4",
            plan_clips(seconds),
            [tmp_path / "clip.mp4"],
            frame_seconds=seconds,
            info=info,
            sound=None,
            options=SMALL,
        )


def test_full_verification_passes_what_is_good(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=7)
    fast = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy())
    full = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(rules=Rules(verify="full")))
    assert (fast.verified, full.verified) == ("fast", "full")
    assert full.clips == fast.clips
    assert full.attempts == 2, "what was only looked at is done again when it is to be decoded"
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).attempts == 2


def test_a_video_may_take_only_so_long(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=40", "-preset", "ultrafast", tmp_path / "long.mp4")
    slow = SplitOptions(preset="veryslow", short_side=480, fast_decode=False)
    record = split(tmp_path / "long.mp4", tmp_path / "root", SplitPolicy(timeout_seconds=0.3), slow)
    assert record.failure is not None and record.failure.stage == "timeout"
    assert "--timeout" in record.failure.error


def test_the_disk_stays_free(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=1)
    with pytest.raises(HicoError, match=r"--min-free` keeps 1000000000\.00 GB"):
        split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(min_free_bytes=10**18))
    assert read_record(tmp_path / "root", "a") is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.processes
def test_a_full_disk_is_said_and_nothing_half_written_stays(small_disk: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "nullsrc=s=320x240:d=12,noise=alls=80:allf=t", "-crf", "10", noise)
    with pytest.raises(HicoError, match=r"the disk or a quota is full; free some space"):
        split(noise, small_disk, SplitPolicy(min_free_bytes=0), SMALL.model_copy(update={"short_side": 240}))
    assert not list((small_disk / "train").iterdir())
    assert not list((small_disk / "records").iterdir())
    assert not (small_disk / ".tmp").exists()
    with pytest.raises(HicoError, match="--min-free` keeps"):
        split(noise, small_disk, SplitPolicy())


def test_an_encoder_that_is_not_there(tmp_path: Path, ffmpeg_program: Path) -> None:
    program = Ffmpeg(ffmpeg_program)
    with pytest.raises(HicoError, match=r"cannot encode with h264_nvenc .*--encoder"):
        require_encoder(program, SplitOptions(encoder="h264_nvenc"), folder=tmp_path)
    require_encoder(program, SplitOptions(), folder=tmp_path)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles(name: str, tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=426x320:d=6", tmp_path / "a.mp4")
    record = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(rules=Rules(verify="full")), PROFILES[name])
    short_side, interval = {"training": (192, 32), "archive": (256, 125), "source": (320, 125)}[name]
    assert {(clip.height, clip.num_frames) for clip in record.clips} == {(short_side, 125), (short_side, 25)}
    assert [clip.keyframe_interval for clip in record.clips] == [interval, min(interval, 25)]


@pytest.mark.parametrize("encoder", ["libx265", "libopenh264"])
def test_other_encoders_cut_as_exactly(encoder: str, tmp_path: Path, ffmpeg_program: Path) -> None:
    options = SMALL.model_copy(update={"encoder": encoder})
    try:
        require_encoder(Ffmpeg(ffmpeg_program), options, folder=tmp_path)
    except HicoError:
        pytest.skip(f"this ffmpeg has no {encoder}")
    numbered_video(tmp_path / "a.mp4", seconds=7, fps="30000/1001")
    record = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(rules=Rules(verify="full")), options)
    assert record.failure is None, record.failure
    shown = []
    for clip in record.clips:
        with av.open(str(tmp_path / "root" / clip.path)) as container:
            shown += [painted_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert shown == list(range(210))


def test_a_constant_rate_can_be_asked_for(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=12, keep="not(between(t,4,9))")
    record = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(), SMALL.model_copy(update={"fps": 10}))
    assert record.failure is None
    assert not record.variable_fps and record.fps == pytest.approx(10)
    assert [clip.num_frames for clip in record.clips] == [50, 50, 20], "the hole is filled with its last picture"


def test_sound_can_be_kept(tmp_path: Path) -> None:
    numbered_video(
        tmp_path / "a.mp4",
        seconds=7,
        before=("-f", "lavfi", "-i", "sine=d=9"),
        output=("-c:v", "libx264", "-preset", "ultrafast", "-map", "0:v", "-map", "1:a"),
    )
    record = split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(), SMALL.model_copy(update={"audio": "keep"}))
    assert [clip.num_frames for clip in record.clips] == [150, 60]
    for clip in record.clips:
        with av.open(str(tmp_path / "root" / clip.path)) as container:
            sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
            seconds = len(sound) / container.streams.audio[0].rate
        assert seconds == pytest.approx(clip.end_seconds - clip.start_seconds, abs=0.15)
    assert len(probe(tmp_path / "a.mp4").timestamps) == 210


def test_the_picture_is_compared_with_the_sources(tmp_path: Path) -> None:
    """Each clip's pictures are close to the source's, at the default profile, on moving pictures."""
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=340x192:d=6", "-crf", "1", tmp_path / "a.mp4")
    split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(), SplitOptions())
    with av.open(str(tmp_path / "a.mp4")) as container:
        expected = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    shown = []
    for path in sorted((tmp_path / "root/train").iterdir()):
        with av.open(str(path)) as container:
            shown += [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    assert len(shown) == len(expected) == 150
    own = max(np.abs(a - b).mean() for a, b in zip(shown, expected, strict=True))
    neighbour = min(np.abs(a - b).mean() for a, b in zip(shown[1:], expected, strict=False))
    assert own < neighbour
