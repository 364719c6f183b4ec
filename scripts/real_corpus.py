"""Pack a small labelled set of real videos, from a clone of its public repository, for hico's experiments.

    git clone https://github.com/varunj/EgoGestAR
    python scripts/real_corpus.py EgoGestAR ego_gest
    git clone https://github.com/seymanurakti/fight-detection-surv-dataset
    python scripts/real_corpus.py fight-detection-surv-dataset fight_surv

ego_gest: 138 clips of a finger that draws one of ten gestures in front of a head-mounted camera, in 14 environments.
fight_surv: 300 clips of about 2 s from 197 fixed cameras, with and without a fight. Clips from the same place were
found by eye (environments) and by correlation of first frames (cameras); the result is in evidence/real_groups.csv.

Writes OUT/clips/LABEL/*.mp4 (shorter side 112 pixels, 15 frames a second, no sound); OUT/untrimmed/*.mp4, the clips of
each place with several labels back to back in an order drawn from the seed; OUT/untrimmed_segments.csv; OUT/clips.txt
(path, label and group); and OUT/foldK_train.txt, OUT/foldK_test.txt: five folds, no place on both sides.
"""

import argparse
import csv
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from hico_core.base.errors import HicoError
from hico_core.base.storage import write_text
from hico_core.corpus.clips.ffmpeg import find_ffmpeg

_GROUPS = Path(__file__).parent / "evidence" / "real_groups.csv"
_REPOSITORIES = {"ego_gest": "varunj/EgoGestAR", "fight_surv": "seymanurakti/fight-detection-surv-dataset"}

_FPS = 15
_SHORT_SIDE = 112  # pixels
_FOLDS = 5


class Clip(NamedTuple):
    """A clip of the repository."""

    path: str  # in the clone
    label: str
    group: str  # the place where it was filmed

    @property
    def packed(self) -> str:
        """Its path relative to the output folder."""
        return f"clips/{self.label}/{Path(self.path).stem}.mp4"


def clips_of(corpus: str, table: Sequence[Mapping[str, str]]) -> list[Clip]:
    """The clips of a corpus, from the rows of real_groups.csv."""
    rows = [(row["clip"], row["group"]) for row in table if row["corpus"] == corpus]
    if corpus == "ego_gest":  # testvideo/testvideo_LABEL_SERIAL.mp4
        return [Clip(path, Path(path).stem.split("_")[1], group) for path, group in rows]
    return [Clip(path, Path(path).parent.name, group) for path, group in rows]  # LABEL/NAME.mp4


def fold_of(clips: Sequence[Clip]) -> dict[str, int]:
    """The fold that tests each group; groups are assigned in turn, in alphabetical order."""
    return {group: place % _FOLDS for place, group in enumerate(sorted({clip.group for clip in clips}))}


def sessions_of(clips: Sequence[Clip], *, seed: int) -> dict[str, list[Clip]]:
    """For each group with at least two labels, its clips in random order."""
    rng = random.Random(seed)
    sessions = {}
    for group in sorted({clip.group for clip in clips}):
        own = [clip for clip in clips if clip.group == group]
        if len({clip.label for clip in own}) > 1:
            rng.shuffle(own)
            sessions[group] = own
    return sessions


def pack(source: Path, target: Path) -> int:
    """Write a clip smaller and at one frame rate; return its number of frames.

    Raises:
        HicoError: ffmpeg cannot.

    """
    scale = f"fps={_FPS},scale='if(gt(iw,ih),-2,{_SHORT_SIDE})':'if(gt(iw,ih),{_SHORT_SIDE},-2)',setsar=1"
    return _encode(["-i", str(source)], ["-vf", scale], target)


def join(sources: Sequence[Path], target: Path) -> int:
    """Join packed clips of one size into one video; return its number of frames.

    Raises:
        HicoError: ffmpeg cannot.

    """
    inputs = [word for source in sources for word in ("-i", str(source))]
    return _encode(inputs, ["-filter_complex", f"concat=n={len(sources)}:v=1:a=0"], target)


def _encode(inputs: Sequence[str], filters: Sequence[str], target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [str(find_ffmpeg()), "-nostdin", "-v", "error", "-y", *inputs, *filters]
    command += ["-an", "-c:v", "libx264", "-crf", "20", "-preset", "slow", "-pix_fmt", "yuv420p", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HicoError(f"{target}: ffmpeg failed: {done.stderr.strip().splitlines()[-1:]}")
    with av.open(str(target)) as opened:
        return opened.streams.video[0].frames


def pack_corpus(clone: Path, corpus: str, out: Path, *, seed: int = 0) -> None:
    """Write everything that the module's docstring lists.

    Raises:
        HicoError: a clip is not in the clone, or cannot be read.

    """
    with _GROUPS.open(newline="") as opened:
        clips = clips_of(corpus, list(csv.DictReader(opened)))
    missing = [clip.path for clip in clips if not (clone / clip.path).is_file()]
    if missing:
        raise HicoError(
            f"{clone}: lacks {len(missing)} of {len(clips)} clips, such as {missing[0]}; give a clone of "
            f"https://github.com/{_REPOSITORIES[corpus]}"
        )

    frames = {clip.packed: pack(clone / clip.path, out / clip.packed) for clip in clips}
    segments = ["video,session,label,start_s,end_s,source_clip"]
    for group, own in sessions_of(clips, seed=seed).items():
        video = f"untrimmed/{group}.mp4"
        num_frames = join([out / clip.packed for clip in own], out / video)
        end = 0
        for clip in own:
            start, end = end, end + frames[clip.packed]
            segments.append(f"{video},{group},{clip.label},{start / _FPS:.3f},{end / _FPS:.3f},{clip.packed}")
        if num_frames != end:
            raise HicoError(f"{out / video}: has {num_frames} frames instead of the {end} of its clips")
    write_text(out / "untrimmed_segments.csv", "\n".join(segments) + "\n")
    write_text(out / "clips.txt", "".join(f"{clip.packed}\t{clip.label}\t{clip.group}\n" for clip in clips))
    folds = fold_of(clips)
    for fold in range(_FOLDS):
        for side, is_test in (("train", False), ("test", True)):
            lines = [f"{clip.packed}\t{clip.label}\n" for clip in clips if (folds[clip.group] == fold) == is_test]
            write_text(out / f"fold{fold}_{side}.txt", "".join(lines))


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack the corpus; on failure, print one line and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of one of the two repositories")
    parser.add_argument("out", type=Path, help="ego_gest or fight_surv, or a path that ends with it")
    asked = parser.parse_args(arguments)
    if asked.out.name not in _REPOSITORIES:
        parser.error(f"{asked.out}: must end with {' or '.join(_REPOSITORIES)}, which says what is packed")
    try:
        pack_corpus(asked.clone, asked.out.name, asked.out)
    except HicoError as error:
        print(f"real_corpus: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
