"""The doctor looks at everything, and says what to type where something is missing."""

from pathlib import Path

import pytest

from hico_core.doctor.findings import examine


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
