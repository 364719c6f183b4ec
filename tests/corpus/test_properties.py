"""For any source: each of its frames is in exactly one clip, the right one, in order, and looks like the source's."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from made_videos import numbered_video, painted_number, run_ffmpeg

from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.records import SplitOptions, read_record

pytestmark = pytest.mark.videos


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSource:
    """How a source is made."""

    container: str
    fps: str
    seconds: float
    size: str
    keep: str  # which frames stay
    codec: tuple[str, ...]
    start_seconds: float
    segment_seconds: float
    new_fps: float | None  # --fps


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "8")

sources = st.builds(
    MadeSource,
    container=st.sampled_from(["mp4", "mkv", "mov", "ts"]),
    fps=st.sampled_from(["30", "30000/1001", "25", "19.62", "50", "12"]),
    seconds=st.floats(0.1, 9.0),
    size=st.sampled_from(["160x120", "120x160", "200x104", "170x96"]),
    keep=st.one_of(
        st.just("1"),
        st.integers(0, 99).map(lambda seed: f"gt(random({seed}),0.3)"),
        st.tuples(st.floats(0.2, 4), st.floats(0.1, 4)).map(
            lambda hole: f"not(between(t,{hole[0]:.2f},{sum(hole):.2f}))"
        ),
    ),
    codec=st.sampled_from(
        [
            (*X264, "-bf", "0"),
            (*X264, "-bf", "3", "-g", "12"),
            (*X264, "-pix_fmt", "yuv444p"),
            (*X264, "-pix_fmt", "yuv420p10le", "-profile:v", "high10"),
            ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "8", "-x265-params", "log-level=none"),
            ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
        ]
    ),
    start_seconds=st.sampled_from([0.0, 7.7]),
    segment_seconds=st.sampled_from([5.0, 2.0, 0.7, 1 / 3]),
    new_fps=st.sampled_from([None, None, 60.0, 29.97, 15.0, 7.0]),
)


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """All frames with their times from the first one's, decoded from the beginning."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    return [(moment - frames[0][0], picture) for moment, picture in frames]


@given(source=sources)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None)
def test_clips_partition_any_source(source: MadeSource) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"a.{source.container}"
        numbered_video(
            path,
            seconds=source.seconds,
            fps=source.fps,
            size=source.size,
            keep=f"{source.keep}+eq(n,0)",
            output=(*source.codec, "-output_ts_offset", str(source.start_seconds)),
        )
        shown = path
        if source.new_fps is not None:  # what the same filter makes of it, in a file that loses nothing
            shown = folder / "resampled.nut"
            rate = Fraction(source.new_fps).limit_denominator(1001)
            run_ffmpeg("-i", path, "-vf", f"fps={rate}", "-c:v", "ffv1", shown)
        try:
            expected = pictures_of(shown)
        except av.EOFError:
            reject()  # ffmpeg itself does not recognise a transport stream of so few packets
        options = SplitOptions(short_side=80, preset="ultrafast", crf=8, segment_seconds=source.segment_seconds)
        options = options.model_copy(update={"fps": source.new_fps})
        width, height = map(int, source.size.split("x"))
        split_videos(
            find_sources([str(path)]),
            root=folder / "root",
            options=options,
            workers=1,
            on_event=lambda event: None,
            policy=SplitPolicy(rules=Rules(verify="full")),
        )
        record = read_record(folder / "root", "a")
        assert record is not None and record.failure is None, record
        frames = iter(expected)
        for clip in record.clips:
            assert min(clip.width, clip.height) == 80
            assert abs(clip.width * height - clip.height * width) <= 2 * max(width, height), "the picture is bent"
            for seconds, picture in pictures_of(folder / "root" / clip.path):
                moment, original = next(frames)
                # The slow, obvious rule: which interval a frame's time falls into, named in rounded milliseconds.
                number = int(moment / source.segment_seconds + 1e-6)
                assert clip.start_ms == round(number * source.segment_seconds * 1000)
                assert abs(clip.start_seconds + seconds - moment) < 2e-3
                assert painted(picture) == painted(original)
                assert abs(picture.mean() - original.mean()) < 12
        assert next(frames, None) is None, "a frame of the source is in no clip"


def painted(picture_HW: np.ndarray) -> int:
    return painted_number(np.repeat(picture_HW[:, :, None], 3, axis=2))
