"""Make a small corpus of untrimmed videos from ffmpeg's own test patterns: 8 videos of 11 to 33 s.

Each video has its own look (tint, shape, frame rate) and changes its scene every few seconds. The names are
deliberately awkward: a leading `-`, a space, a `v_` prefix.

    python scripts/make_corpus.py FOLDER
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hico_core.corpus.clips.ffmpeg import find_ffmpeg

# ffmpeg's deterministic test sources; {size} and {rate} are those of the video.
_SCENES = (
    "testsrc2=s={size}:r={rate}",
    "rgbtestsrc=s={size}:r={rate},rotate=t/2",
    "mandelbrot=s={size}:r={rate}:maxiter=400",
    "life=s={size}:r={rate}:ratio=0.3:seed=5:mold=10:life_color=yellow:death_color=navy",
    "smptebars=s={size}:r={rate},rotate=-t/3",
    "cellauto=s={size}:r={rate}:rule=110:seed=3",
    "testsrc=s={size}:r={rate},hflip",
    "sierpinski=s={size}:r={rate}:seed=2",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video to make."""

    name: str
    seconds: list[int]  # of its scenes
    size: str
    rate: str  # frames per second
    tint: tuple[float, float, float]  # factors for red, green and blue


_VIDEOS = (
    Video(name="v_kitchen01.mp4", seconds=[4, 3, 6, 5], size="320x240", rate="30", tint=(1.0, 0.3, 0.3)),
    Video(name="-garden_02.mp4", seconds=[5, 6], size="426x240", rate="30000/1001", tint=(0.3, 1.0, 0.3)),
    Video(name="street at night.mp4", seconds=[7, 4, 5, 6], size="320x240", rate="25", tint=(0.3, 0.3, 1.0)),
    Video(name="harbour.mkv", seconds=[3, 4, 5], size="180x320", rate="24", tint=(1.0, 1.0, 0.2)),
    Video(name="v_-workshop.mp4", seconds=[6, 8, 5, 7, 7], size="320x240", rate="30", tint=(0.2, 1.0, 1.0)),
    Video(name="stadium.webm", seconds=[5, 4, 4], size="240x180", rate="20", tint=(1.0, 0.2, 1.0)),
    Video(name="mountain_hut.mp4", seconds=[8, 6, 3], size="426x240", rate="30", tint=(1.0, 1.0, 1.0)),
    Video(name="market.mp4", seconds=[4, 9, 4, 4], size="320x240", rate="25", tint=(0.3, 0.3, 0.3)),
)


def ffmpeg_arguments(number: int, video: Video, target: Path) -> list[str]:
    """Arguments that join the scenes one after the other, then apply the tint."""
    arguments = ["-nostdin", "-v", "error", "-y"]
    for place, seconds in enumerate(video.seconds):
        scene = _SCENES[(3 * number + place) % len(_SCENES)].format(size=video.size, rate=video.rate)
        arguments += ["-f", "lavfi", "-t", str(seconds), "-i", scene]
    count = len(video.seconds)
    same_format = ";".join(f"[{i}:v]format=yuv420p,setsar=1[s{i}]" for i in range(count))
    tint = "lutrgb=" + ":".join(f"{c}=val*{gain}" for c, gain in zip("rgb", video.tint, strict=True))
    joined = "".join(f"[s{i}]" for i in range(count)) + f"concat=n={count}:v=1,{tint},format=yuv420p"
    codec = (
        ["-c:v", "libvpx", "-deadline", "realtime", "-b:v", "500k", "-threads", "1"] if target.suffix == ".webm" else []
    )
    return [
        *arguments,
        "-filter_complex",
        f"{same_format};{joined}",
        *(codec or ["-preset", "ultrafast"]),
        str(target),
    ]


def make_corpus(folder: Path) -> None:
    """Make the videos that are missing from the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = find_ffmpeg()
    for number, video in enumerate(_VIDEOS):
        target = folder / video.name
        if not target.exists():
            beside = folder / f"making{target.suffix}"
            subprocess.run([program, *ffmpeg_arguments(number, video, beside)], check=True)
            beside.rename(target)


if __name__ == "__main__":
    make_corpus(Path(sys.argv[1]).absolute())
