"""What messages are put together from: each names its subject once, and what it says to type can be typed."""

import pickle
import re
from pathlib import Path

import pytest

from hico_core.base.errors import BadVideo, HicoError, UsageError, require_package, short_reason

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied", "a.mp4"), "Permission denied"),
        (ValueError("first\nsecond"), "first"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_reason_is_one_line_without_the_path(error: Exception, reason: str) -> None:
    assert short_reason(error) == reason


def test_a_bad_video_is_named_once_and_its_clip_beside_it() -> None:
    bad = pickle.loads(pickle.dumps(BadVideo("a.mp4", "no such file", stage="decode")))
    assert (str(bad), bad.stage) == ("a.mp4: no such file", "decode")
    assert bad.said_of(Path("a.mp4")) == bad.said_of("a.mp4") == "no such file"
    assert BadVideo("train/v_a_0.mp4", "no such file").said_of("a.mp4") == "train/v_a_0.mp4: no such file"


@pytest.mark.parametrize("error", [HicoError("is empty", subject=Path("a.npy")), HicoError("a.npy: is empty")])
def test_an_error_names_its_subject_once_wherever_it_comes_from(error: HicoError) -> None:
    sent = pickle.loads(pickle.dumps(error))
    assert str(sent) == str(error) == "a.npy: is empty"
    assert sent.reason == error.reason


def extras() -> set[str]:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n\n")[0]
    return set(re.findall(r"^(\w+) = ", section, re.MULTILINE))


def test_what_is_to_be_installed_can_be() -> None:
    """From the checkout: hico stands in no registry, where its name may become somebody else's."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("hico_c*/**/*.py")]
    texts = {path: path.read_text() for path in files}
    assert [str(path) for path, text in texts.items() if re.search(r"hico\[|pip install '?hico\b", text)] == []
    to_type = r"'\.\[(\w+)\]'|extra=\"(\w+)\", wanted_by|how_to_install\('(\w+)'\)"
    named = {"".join(extra) for text in texts.values() for extra in re.findall(to_type, text)}
    assert {"ray", "s3", "hdf5", "onnx", "wandb"} <= named <= extras()


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hico_core.base.errors.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^--ray-address: needs the package ray: pip install '\.\[ray\]' in"):
        require_package("ray", extra="ray", wanted_by="--ray-address")
