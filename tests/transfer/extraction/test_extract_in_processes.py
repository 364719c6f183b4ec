"""Several processes that share the videos write what one writes, and the same command continues whatever ended them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_videos import numbered_video
from trees import tree

from hico_core.base.errors import HicoError, UsageError
from hico_core.base.tally import Summary, VideoEvent
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.workspace.access import Shard
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.extract import ExtractionPolicy, Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of_files, part_of
from hico_core.transfer.extraction.manifest import check_features, read_manifest
from hico_core.transfer.features import FeatureExtractor


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, of which one is long and one cannot be read, an encoder, and the features that one process makes."""
    base = tmp_path_factory.mktemp("processes")
    for number, seconds in enumerate((2, 3, 4, 5, 16)):
        numbered_video(base / f"videos/{number}.mp4", seconds=seconds)
    (base / "videos/broken.mp4").write_text("no video")
    torch.manual_seed(0)
    export_encoder(base / "encoder.safetensors", S3DGTiny())
    extract(base, base / "alone", ExtractionPolicy(workers=0))
    return base


def load(base: Path) -> FeatureExtractor:
    return FeatureExtractor.from_checkpoint(base / "encoder.safetensors", stride=8, device="cpu")


def extract(
    base: Path,
    folder: Path,
    policy: ExtractionPolicy,
    events: list[VideoEvent] | None = None,
    *,
    root: Path | None = None,
) -> Summary:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as those processes have on two cores; with more, the last bits differ
    try:
        return extract_features(
            jobs_of_files(find_sources([str(base / "videos")])),
            encoder=load(base),
            root=root or folder.parent,
            files=Files(folder),
            policy=policy,
            on_event=(events if events is not None else []).append,
        )
    finally:
        torch.set_num_threads(threads)


def arrays(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.endswith(".npy")}


@pytest.mark.videos
@pytest.mark.processes
def test_they_write_what_one_writes(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    events: list[VideoEvent] = []
    policy = ExtractionPolicy(workers=0, processes=3)
    summary = extract(base, tmp_path / "features", policy, events)
    assert (summary.num_done, summary.num_failed) == (5, 1)
    assert [event.num_done for event in events] == list(range(1, 7))
    assert arrays(tmp_path / "features") == arrays(base / "alone")
    assert read_manifest(tmp_path / "features") == read_manifest(base / "alone")
    assert extract(base, tmp_path / "features", policy).num_unchanged == 5


@pytest.mark.processes
def test_a_shard_is_shared(base: Path, tmp_path: Path) -> None:
    jobs = jobs_of_files(find_sources([str(base / "videos")]))
    for number in (1, 2):
        shard = Shard(number, 2)
        summary = extract(base, tmp_path / "features", ExtractionPolicy(workers=0, processes=2, shard=shard))
        assert summary.num_done + summary.num_failed == len(part_of(jobs, shard))
    assert read_manifest(tmp_path / "features").keys() == read_manifest(base / "alone").keys()


@pytest.mark.processes
def test_an_encoder_that_is_replaced_meanwhile_is_one_error(base: Path, tmp_path: Path) -> None:
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    loaded_before = FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", device="cpu")
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())  # as a training that goes on
    with pytest.raises(HicoError, match=r"encoder\.safetensors: has changed since the command began"):
        extract_features(
            base / "videos", encoder=loaded_before, root=tmp_path, policy=ExtractionPolicy(workers=0, processes=2)
        )
    with pytest.raises(UsageError, match="--nproc 2: cannot be combined with --ray-address"):
        ExtractionPolicy(processes=2, ray_address="local")


def descendants(process_id: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended
    found = [process_id]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_outlives_the_command_which_then_goes_on(
    base: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    """Neither those that encode nor those that read for them; what is there agrees with its manifest."""
    folder = tmp_path / "features/made"
    command = [*(sys.executable, "-m", "hico_cli", "extract-features", str(base / "videos"), "--root", str(tmp_path))]
    command += [*("--checkpoint", str(base / "encoder.safetensors"), "--name", "made", "--stride", "8", "--nproc", "2")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--workers", "1"], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        deadline = time.monotonic() + 240
        while not list(folder.glob("*.npy")):
            assert process.poll() is None and time.monotonic() < deadline, "no video is extracted"
            time.sleep(0.01)
        started = descendants(process.pid)
        assert len(started) >= 2
        process.send_signal(how)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said and ("stopped; the same command continues" in said) == (code > 0)
    deadline = time.monotonic() + 60
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.02)
    before = arrays(folder)
    assert 0 < len(before) < 5
    summary = extract(base, folder, ExtractionPolicy(workers=0), root=tmp_path)
    assert summary.num_unchanged >= len(before) - 1, "of a file that is there, only the line may be missing"
    assert arrays(folder) == arrays(base / "alone") and not list(check_features(folder))
