"""The doctor looks at everything, and says what to type where something is missing."""

from pathlib import Path

import pytest
import torch

from hico_core.doctor.findings import examine, of_encoder


@pytest.mark.videos
def test_this_machine_can_run_hico(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in examine(tmp_path)}
    for name in ("Python", "ffmpeg", "encoder libx264", "PyAV", "PyTorch", "workspace"):
        assert findings[name].state == "ok", findings[name]
    assert {"decord", "GPU", "Ray", "S3", "OSS", "open files"} <= set(findings)
    assert all(finding.advice for finding in findings.values() if finding.state != "ok")


def test_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HICO_FFMPEG", "/no/such/program")
    finding = next(finding for finding in examine(tmp_path) if finding.name == "ffmpeg")
    assert finding.state == "missing"
    assert "/no/such/program" in finding.found and "imageio-ffmpeg" in finding.advice


def test_a_workspace_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HICO_FFMPEG", "/no/such/program")  # the doctor is quicker without
    (tmp_path / "notes").write_text("mine")
    *_, finding = examine(tmp_path / "notes")
    assert (finding.name, finding.state) == ("workspace", "missing") and "notes is a file" in finding.found


@pytest.mark.parametrize(
    ("encoder", "fault", "state", "found"),
    [
        ("libx264", None, "ok", "encodes"),
        ("libx264", "Unknown encoder 'libx264'", "missing", "Unknown encoder 'libx264'"),
        ("libx265", "Unknown encoder 'libx265'", "optional", "Unknown encoder 'libx265'"),
        ("h264_nvenc", "[h264_nvenc @ 0x5e] Cannot load libcuda.so.1", "optional", "no NVIDIA driver"),
        ("h264_nvenc", "[h264_nvenc @ 0x5e] OpenEncodeSessionEx failed", "optional", "OpenEncodeSessionEx failed"),
    ],
)
def test_what_is_said_of_video_encoders(encoder: str, fault: str | None, state: str, found: str) -> None:
    finding = of_encoder(encoder, fault)
    assert finding.state == state and finding.found.endswith(found)
    assert finding.advice == f"only for --encoder {encoder}" or state != "optional"


@pytest.mark.parametrize(
    ("mps", "cards", "found"),
    [
        (False, None, "none that PyTorch sees"),
        (True, None, "a Mac's (MPS), which hico does not use"),
        (False, (False, (7, 5)), "1 x A Card, CUDA 13.0, trains in fp16"),
        (False, (True, (9, 0)), "1 x A Card, CUDA 13.0, trains in bf16"),
        (False, (False, (6, 1)), "1 x A Card, CUDA 13.0, trains in fp32"),
    ],
)
def test_what_is_said_of_gpus(
    mps: bool, cards: tuple[bool, tuple[int, int]] | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_bf16, capability = cards or (False, (0, 0))
    monkeypatch.setenv("HICO_FFMPEG", "/no/such/program")  # the doctor is quicker without
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "A Card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert next(finding.found for finding in examine(tmp_path) if finding.name == "GPU") == found
