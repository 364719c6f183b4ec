"""The check for GPUs keeps what it has measured, whatever comes after it; its parts run here with tiny sizes."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)  # it imports the scripts beside it
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPTS / "gpu_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def test_what_does_not_fit_into_memory_is_a_row_like_others(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(config: object, row: dict[str, Any], sizes: object, device: object) -> dict[str, float]:
        if row["videos"] == 64 and not row["recompute"]:
            raise torch.OutOfMemoryError("too much")
        return {"clips/s": 1.0}

    monkeypatch.setattr(gpu_check, "_measure_steps", measure)
    sizes = replace(gpu_check.CPU_SIZES, batches=(32, 64))
    rows = list(gpu_check.check_memory_and_speed(sizes, torch.device("cpu")))
    assert [row.get("out of memory", False) for row in rows] == [False, False, True, False, False, False]
    assert {row.get("layout") for row in rows} == {None, "contiguous"}
    assert [row.get("cudnn.benchmark", False) for row in rows].count(True) == 1
    assert all(row["clips/s"] == 1.0 for row in rows if not row.get("out of memory"))


def test_what_is_measured_stays_where_a_later_part_fails(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = tmp_path / "gpu.json"

    def rows(sizes: object, device: object) -> Any:  # noqa: ANN401
        yield {"videos": 8}
        yield {"videos": 16}
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Device")
    monkeypatch.setattr(gpu_check, "choose_precision", lambda *args: gpu_check.BF16)
    monkeypatch.setattr(gpu_check, "check_parity", lambda *args: {"fp32": 0.0})
    monkeypatch.setattr(gpu_check, "check_memory_and_speed", rows)
    monkeypatch.setattr(gpu_check, "report", lambda name, results: written.write_text(json.dumps([name, results])))
    with pytest.raises(RuntimeError, match="the device is gone"):
        gpu_check.main()
    name, results = json.loads(written.read_text())
    assert name == "gpu-a-device"
    assert results["parity"]["found"] == {"fp32": 0.0}
    assert results["steps"]["found"] == [{"videos": 8}, {"videos": 16}]


def test_parts_that_are_not_asked_for_stay(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As long as PyTorch is the same: what was measured with another is dropped."""
    monkeypatch.setattr("benchmarking.MEASUREMENTS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Device")
    monkeypatch.setattr(gpu_check, "choose_precision", lambda *args: gpu_check.BF16)
    found = iter("abcd")
    for check in ("check_parity", "check_profile"):
        monkeypatch.setattr(gpu_check, check, lambda *args: next(found))

    def kept(*parts: str) -> dict[str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *parts])
        gpu_check.main()
        results = json.loads((tmp_path / "gpu-a-device.json").read_text())
        return {part: results[part]["found"] for part in ("parity", "profile") if part in results}

    assert kept("parity", "profile") == {"parity": "a", "profile": "b"}
    assert kept("profile") == {"parity": "a", "profile": "c"}
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert kept("profile") == {"profile": "d"}
    with pytest.raises(SystemExit):
        kept("nonsense")


@pytest.mark.slow
def test_parity_is_measured_with_trained_weights_and_a_yardstick(gpu_check: ModuleType) -> None:
    """On a CPU, float32 differs from itself by nothing, and bfloat16 by what the yardstick says."""
    found = gpu_check.check_parity(replace(gpu_check.CPU_SIZES, trained_steps=1), torch.device("cpu"))
    assert set(found["fp32"].values()) == {0.0}
    assert found["bf16"] == found["yardstick: bf16 on the CPU"]
    assert found["bf16"]["embeddings"] > 0
