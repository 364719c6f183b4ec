"""On a cluster, features are those of this machine to the byte, whoever dies meanwhile."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from made_videos import numbered_video
from trees import tree

from hico_core.base.errors import HicoError
from hico_core.base.tally import Summary
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.sources.finding import find_sources
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.extract import ExtractionPolicy, Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of_files
from hico_core.transfer.extraction.manifest import read_manifest
from hico_core.transfer.features import FeatureExtractor

ray = pytest.importorskip("ray")
from clusters import ray_cluster  # noqa: E402 - only with Ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.videos,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters on one machine"),
]


def at_work() -> list[int]:
    """The processes of the cluster that extract features now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::_extract_as_described" in entry.joinpath("cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def wait_for_work() -> int:
    """A process that extracts: on a busy machine, one may have done all before another has started."""
    deadline = time.monotonic() + 120
    while not (found := at_work()):
        assert time.monotonic() < deadline, "the cluster does not begin"
        time.sleep(0.02)
    return found[0]


def test_a_cluster_loses_a_process_and_then_a_node(tmp_path: Path) -> None:
    for number in range(4):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=8 + number)
    (tmp_path / "videos/broken.mp4").write_text("no video")
    torch.manual_seed(0)
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's processes have; with more, the last bits differ

    def load() -> FeatureExtractor:
        return FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", stride=8, device="cpu")

    def extract(folder: Path, address: str | None, extractor: FeatureExtractor | None = None) -> Summary:
        return extract_features(
            jobs_of_files(find_sources([str(tmp_path / "videos")])),
            encoder=extractor or load(),
            root=tmp_path,
            files=Files(folder),
            policy=ExtractionPolicy(workers=0, ray_address=address),
        )

    extract(tmp_path / "local", None)
    torch.set_num_threads(threads)
    lost: list[int] = []
    with ray_cluster() as cluster:

        def kill() -> None:
            lost.append(wait_for_work())
            os.kill(lost[0], signal.SIGKILL)
            while lost[0] in at_work():
                time.sleep(0.02)
            wait_for_work()
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            lost.append(0)

        killer = threading.Thread(target=kill)
        killer.start()
        summary = extract(tmp_path / "ray", cluster.address)
        killer.join()
        assert len(lost) == 2
        assert (summary.num_done, summary.num_failed) == (4, 1)
        assert extract(tmp_path / "ray", cluster.address).num_unchanged == 4
        loaded_before = load()
        export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())  # as a training that goes on
        with pytest.raises(HicoError, match=r"encoder\.safetensors: has changed since the command began"):
            extract(tmp_path / "mixed", cluster.address, loaded_before)

    def arrays(folder: Path) -> dict[str, bytes]:
        return {name: data for name, data in tree(folder).items() if name.endswith(".npy")}

    assert arrays(tmp_path / "ray") == arrays(tmp_path / "local")
    one, other = (read_manifest(tmp_path / name) for name in ("ray", "local"))
    assert one == other
