"""Single pictures, and a file of them, show what ffmpeg shows."""

from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import frames_of_ffmpeg, run_ffmpeg

from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.frame_pictures import read_picture, require_pictures_of_one_size, write_as_video
from hico_core.corpus.clips.picture import rgb
from hico_core.corpus.clips.probe import frame_times


@pytest.mark.videos
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("rate", [30000 / 1001, 7.3, 0.5])
def test_a_file_of_pictures_has_their_frames_at_their_times(suffix: str, rate: float, tmp_path: Path) -> None:
    pictures = [tmp_path / f"100%d {number}.{suffix}" for number in range(5)]  # a name is no pattern
    for number, path in enumerate(pictures):
        run_ffmpeg("-f", "lavfi", "-i", f"testsrc=s=63x48:r=1:d={number + 1}", "-update", "1", path)
    write_as_video(pictures, tmp_path / "all.nut", frame_rate=rate)
    require_pictures_of_one_size(pictures)
    shown = frames_of_ffmpeg(tmp_path / "all.nut", tmp_path)
    assert np.array_equal(shown, [rgb(read_picture(path), None) for path in pictures])
    assert len({picture.tobytes() for picture in shown}) == 5
    times = frame_times(tmp_path / "all.nut")
    assert times == pytest.approx([number / rate for number in range(5)], abs=1e-12)
    with av.open(str(tmp_path / "all.nut")) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    assert packets == [path.read_bytes() for path in pictures]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "i7.jpg").write_bytes(content)
    with pytest.raises(BadVideo, match=r"i7\.jpg is empty, damaged or not a picture"):
        require_pictures_of_one_size([tmp_path / "i7.jpg"])
    with pytest.raises(BadVideo, match=r"i7\.jpg cannot be (opened|decoded)"):
        read_picture(tmp_path / "i7.jpg")
