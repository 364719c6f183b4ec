"""Networks of transformers, tiny ones saved to a folder, are read as transformers reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frames import made_frames, shown_to
from tiny_transformers import KINDS, save

from hico_core.base.errors import HicoError
from hico_core.checkpoints.frozen import load_frozen

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_means_of_tokens_or_the_first_one(kind: str, tmp_path: Path) -> None:
    network = save(tmp_path, kind)
    encoder = load_frozen(f"hf:{tmp_path}")
    clips = torch.rand(2, 3, 4, 32, 32)
    frames = clips.transpose(1, 2)
    with torch.inference_mode():
        if kind == "dinov2":
            tokens = network(frames.flatten(0, 1)).last_hidden_state[:, 0].unflatten(0, (2, 4)).mean(dim=1)
        elif kind == "timesformer":
            tokens = network(frames).last_hidden_state[:, 0]
        else:
            tokens = network(frames).last_hidden_state.mean(dim=1)
        torch.testing.assert_close(encoder.network(clips), tokens, atol=1e-5, rtol=1e-5)
    entry = encoder.entry
    assert (entry.picture.size, entry.feature_dim, entry.gives) == (32, 24, "rows")
    assert (entry.shortest_window, entry.longest_window) == {
        "videomae": (4, 4),
        "vjepa2": (2, None),
        "timesformer": (4, 4),
        "dinov2": (1, None),
    }[kind]


def test_pictures_are_those_of_the_folder_s_own_settings(tmp_path: Path) -> None:
    """But for one level of grey, since transformers rounds in the middle of scaling as well."""
    save(tmp_path, "videomae")
    frames = made_frames(4)
    reader = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected_TCHW = torch.from_numpy(np.stack(reader(list(frames))["pixel_values"][0]))
    picture = load_frozen(f"hf:{tmp_path}").entry.picture
    shown_TCHW = shown_to(picture, frames)[0].transpose(0, 1)
    torch.testing.assert_close(shown_TCHW, expected_TCHW, atol=1.01 / 255 / 0.5, rtol=0)


def _without_an_entry(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state[next(name for name in state if name.endswith("weight"))]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _of_another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))


def _with_code(folder: Path) -> None:
    settings = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "mine.py").write_text("raise SystemExit('code of a folder ran')")


def _without_settings_of_pictures(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_an_entry, "has no weights for"),
        (_of_another_kind, "is of the unsupported type bert; supported are videomae"),
        (_with_code, "cannot be read by transformers"),
        (_without_settings_of_pictures, "cannot be read by transformers"),
    ],
)
def test_what_is_refused(damage: Any, said: str, tmp_path: Path) -> None:  # noqa: ANN401
    save(tmp_path, "videomae")
    damage(tmp_path)
    with pytest.raises(HicoError) as refused:
        load_frozen(f"hf:{tmp_path}")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_folder_is_not_downloaded() -> None:
    with pytest.raises(HicoError, match="no such folder; to download it from the hub, write hf:a/b=DEFAULT"):
        load_frozen("hf:a/b")
