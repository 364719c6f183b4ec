"""Compares file profiles for training: size, similarity to the source, and the costs of making and reading them.

    python scripts/bench_profiles.py VIDEOS [ROUNDS]

Similarity is ffmpeg's SSIM of central squares of half and of three quarters of the height, scaled to 112x112, against
the same squares of the 640x360 source: what a crop of the augmentation shows.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarking import Cost, alternate, cost_of_call, make_sources, ratio, report, summary

from hico_core.corpus.clips.ffmpeg import find_ffmpeg
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.reading import read_clip
from hico_core.data.videos import IndexedVideos

PROFILES = {
    f"{side} keyint {gop}": SplitOptions(short_side=side, gop=gop) for side in (192, 256) for gop in (16, 32)
} | {"256 not for reading (gop 30)": SplitOptions(short_side=256, gop=30, fast_decode=False)}

_CLIPS_PER_ROUND = 60


def split(sources: list[Path], root: Path, options: SplitOptions) -> Cost:
    """Split with these options, into a new workspace."""
    shutil.rmtree(root, ignore_errors=True)
    given = find_sources([str(source) for source in sources])
    return cost_of_call(lambda: split_videos(given, root=root, options=options, workers=2, on_event=lambda event: None))


def read(root: Path) -> Cost:
    """Decode clips of 16 frames at random places, as training does, up to RGB."""
    videos = IndexedVideos(read_index_table(root), root=root)
    rng = random.Random(0)

    def run() -> None:
        for number in range(_CLIPS_PER_ROUND):
            video = number % len(videos)
            start = rng.uniform(0, videos.duration_seconds(video) - 64 / 30)
            window = (start, start + 64 / 30)
            read_clip(videos.pieces(video, window), window, num_frames=16, decoder="pyav")

    return cost_of_call(run)


def likeness(source: Path, root: Path, *, part: float) -> float:
    """SSIM of a central square of the split video against the source's, mean over all frames."""
    clips = sorted((root / "train").glob(f"v_{source.stem}_*.mp4"))
    listed = root / "clips.txt"
    listed.write_text("".join(f"file '{clip}'\n" for clip in clips))
    crop = f"crop=ih*{part}:ih*{part},scale=112:112:flags=area,setpts=N/30/TB"
    inputs = ["-f", "concat", "-safe", "0", "-i", str(listed), "-i", str(source)]
    compared = subprocess.run(
        [find_ffmpeg(), "-nostdin", *inputs, "-lavfi", f"[0:v]{crop}[a];[1:v]{crop}[b];[a][b]ssim", "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"All:([\d.]+)", compared.stderr)
    assert found is not None
    return float(found[1])


def main() -> None:
    """Measure, and write docs/measurements/profiles.json."""
    videos, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        work = Path(name)
        sources = make_sources(videos, work / "sources", height=360, count=2)
        made = alternate(
            {profile: partial(split, sources, work / profile, options) for profile, options in PROFILES.items()},
            rounds=2,
        )
        for profile in PROFILES:
            build_index(work / profile)
        costs = alternate({profile: partial(read, work / profile) for profile in PROFILES}, rounds=rounds)
        base = next(iter(PROFILES))
        minutes = 60 * len(sources) / 60
        results = {
            profile: {
                "kB per minute": sum(path.stat().st_size for path in (work / profile / "train").iterdir())
                / 1000
                / minutes,
                "SSIM crop 0.50": likeness(sources[0], work / profile, part=0.5),
                "SSIM crop 0.75": likeness(sources[0], work / profile, part=0.75),
                "ms CPU per clip read": summary(costs)[profile]["cpu_seconds"] / _CLIPS_PER_ROUND * 1000,
                f"read / {base}": ratio(costs, profile, base),
                f"split / {base}": ratio(made, profile, base),
            }
            for profile in PROFILES
        }
    report("profiles", results)


if __name__ == "__main__":
    main()
