"""Checkpoints go to other formats and come back, and what is written computes the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import load_json
from made_checkpoints import save_checkpoint
from safetensors.torch import load_file

from hico_core import __version__
from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import Progress, content_of, export_encoder, restore
from hico_core.checkpoints.convert import convert
from hico_core.checkpoints.reading import load_backbone, read_checkpoint
from hico_core.config import flat_settings, load_config
from hico_core.data.plan import Position
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.step import train_step

LAYOUT = load_json("checkpoint_layout.json")
NAMES = load_json("state_dict_names.json")
CONFIG = load_config(base="hacs-hico-s", overrides=["optim.base_lr=0.2", "train.batch_size=16"])


SHAPES = [(3, 3, 16, 112, 112), (1, 3, 20, 64, 160)]
ABOUT = {
    "model": "s3dg",
    "hico_version": __version__,
    "num_frames": "16",
    "fps": "7.5",
    "size": "112",
    "mean": "0.45",
    "std": "0.225",
}


def make_optimizer(model: HicoModel) -> LARS:
    return LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=False), lr=0.9)


@pytest.fixture(scope="module")
def trained() -> tuple[HicoModel, LARS]:
    """One step, so that every parameter has its momentum."""
    torch.manual_seed(0)
    model = HicoModel().train()
    optimizer = make_optimizer(model)
    result = train_step(Learner.of(model, optimizer), torch.randn(2, 3, 3, 8, 32, 32), loss=CONFIG.loss, lr=0.9)
    assert result is not None
    return model, optimizer


@pytest.fixture(scope="module")
def checkpoint(trained: tuple[HicoModel, LARS], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "last.pt"
    model, optimizer = trained
    save_checkpoint(
        path,
        model=model,
        optimizer=optimizer,
        progress=Progress(position=Position(30, 10, 0), epochs_done=10.0),
        config=CONFIG.model_dump(mode="json"),
    )
    return path


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> dict[str, Any]:
    """The same as a file of the authors."""
    target = checkpoint.with_name("checkpoint_epoch_00010.pyth")
    assert "10 whole epochs" in convert(checkpoint, target, to="authors")
    content: dict[str, Any] = torch.load(target, weights_only=True)
    return content


def without_ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """As their own code writes it."""
    return {key: value for key, value in theirs.items() if key != "hico"}


@pytest.mark.slow
def test_authors_file_has_exactly_their_entries(theirs: dict[str, Any]) -> None:
    assert list(theirs) == [*LAYOUT["top_level_keys"], "hico"]  # of which their code knows nothing
    assert theirs["epoch"] == LAYOUT["epoch_value"]
    model_state = theirs["model_state"]
    assert [(name, list(value.shape)) for name, value in model_state.items()] == [
        (name, shape) for name, shape, _ in NAMES["pretrain_hico"]
    ]
    assert len(model_state) == LAYOUT["model_state_num_keys"]


@pytest.mark.slow
def test_authors_optimiser_is_laid_out_as_theirs(theirs: dict[str, Any], trained: tuple[HicoModel, LARS]) -> None:
    optimizer = theirs["optimizer_state"]
    assert list(optimizer) == LAYOUT["optimizer_state_keys"]
    assert sorted(optimizer["state"]) == list(range(len(LAYOUT["optimizer_index_to_name"])))
    for group, expected in zip(optimizer["param_groups"], LAYOUT["optimizer_param_groups"], strict=True):
        assert list(group) == list(expected)
        for key, kind in expected.items():
            assert type(group[key]).__name__ == kind["type"], key
            if "value" in kind:
                assert group[key] == pytest.approx(kind["value"]), key
        span = expected["params"]
        assert group["params"] == (list(range(span["first"], span["last"] + 1)) if "first" in span else [])
    # Momentum lies at the place of its parameter: shapes and values follow their list of names.
    for index, name in enumerate(LAYOUT["optimizer_index_to_name"]):
        entry = optimizer["state"][index]
        assert list(entry) == ["momentum_buffer"]
        assert entry["momentum_buffer"].shape == theirs["model_state"][name].shape, name
    model, ours = trained
    momentum = ours.state[dict(model.named_parameters())["visual_head.linear3.weight"]]["momentum_buffer"]
    place = LAYOUT["optimizer_index_to_name"].index("head.mlp_vcl.logits_out_b2.weight")
    assert torch.equal(optimizer["state"][place]["momentum_buffer"], momentum)


def test_authors_settings_are_text_with_their_sections(theirs: dict[str, Any]) -> None:
    assert type(theirs["cfg"]).__name__ == LAYOUT["cfg_type"]
    settings = json.loads(theirs["cfg"])
    assert set(settings) == set(LAYOUT["cfg_json_top_keys"])
    assert settings["OPTIMIZER"]["BASE_LR"] == 0.2
    assert settings["TRAIN"]["BATCH_SIZE"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("epochs_done", [0.4, 10.0, 12.75])
def test_there_and_back_from_any_step(checkpoint: Path, epochs_done: float, tmp_path: Path) -> None:
    """In the middle of an epoch too, which the authors' format cannot say."""
    content = torch.load(checkpoint, weights_only=True)
    content["progress"] |= {"position": (27, 0, 27), "epochs_done": epochs_done, "bad_videos": ["x"]}
    content["scaling"] = {"scale": 512.0, "skipped_steps": 7}
    torch.save(content, tmp_path / "middle.pt")
    said = convert(tmp_path / "middle.pt", tmp_path / "theirs.pyth", to="authors")
    assert f"{int(epochs_done)} whole epochs" in said
    assert torch.load(tmp_path / "theirs.pyth", weights_only=True)["epoch"] == int(epochs_done) - 1
    assert f"{epochs_done:g} epochs" in convert(tmp_path / "theirs.pyth", tmp_path / "again.pt", to="hico")
    before, after = (content_of(read_checkpoint(tmp_path / name)) for name in ("middle.pt", "again.pt"))
    assert after.progress == before.progress
    assert after.config == before.config
    assert after.scaling == before.scaling == content["scaling"]
    broken = torch.load(tmp_path / "theirs.pyth", weights_only=True) | {"hico": {"progress": 1, "config": {}}}
    torch.save(broken, tmp_path / "broken.pyth")
    with pytest.raises(HicoError, match=r"broken\.pyth: its entry 'hico' is not as hico writes it"):
        convert(tmp_path / "broken.pyth", tmp_path / "never.pt", to="hico")


@pytest.mark.slow
def test_there_and_back_without_the_topical_term(tmp_path: Path) -> None:
    """Such a model has no topic head."""
    model = HicoModel(topical=False)
    config = load_config(base="hacs-hico-s", overrides=["loss.topical_weight=0"])
    save_checkpoint(
        tmp_path / "ours.pt",
        model=model,
        optimizer=make_optimizer(model),
        progress=Progress(position=Position(30, 10, 0), epochs_done=10.0),
        config=config.model_dump(mode="json"),
    )
    convert(tmp_path / "ours.pt", tmp_path / "theirs.pyth", to="authors")
    convert(tmp_path / "theirs.pyth", tmp_path / "again.pt", to="hico")
    again = content_of(read_checkpoint(tmp_path / "again.pt")).model
    assert again.keys() == model.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["model.gating=false", "model.norm_eps=0.001", "model.encoder=s3dg-tiny"])
def test_only_the_paper_s_encoder_becomes_a_file_of_theirs(checkpoint: Path, setting: str, tmp_path: Path) -> None:
    """Theirs does not say which one it is, so it would be read as the paper's."""
    content = torch.load(checkpoint, weights_only=True)
    content["config"] = load_config(base="hacs-hico-s", overrides=[setting]).model_dump(mode="json")
    torch.save(content, tmp_path / "ours.pt")
    with pytest.raises(HicoError, match=rf"ours\.pt: was trained with {setting}, which the authors' format cannot say"):
        convert(tmp_path / "ours.pt", tmp_path / "theirs.pyth", to="authors")
    assert not (tmp_path / "theirs.pyth").exists()


@pytest.mark.slow
def test_from_their_file_a_run_goes_on_at_the_next_epoch(
    theirs: dict[str, Any], trained: tuple[HicoModel, LARS], tmp_path: Path
) -> None:
    torch.save(without_ours(theirs), tmp_path / "theirs.pyth")
    assert "10 epochs" in convert(tmp_path / "theirs.pyth", tmp_path / "last.pt", to="hico")
    model = HicoModel()
    optimizer = make_optimizer(model)
    parsed = content_of(read_checkpoint(tmp_path / "last.pt"))
    restore(parsed, model=model, optimizer=optimizer, origin=tmp_path)
    progress = parsed.progress
    assert progress.position == Position(0, 10, 0) and progress.epochs_done == 10.0
    trained_model, trained_optimizer = trained
    for (name, value), again in zip(trained_model.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
    for one, other in zip(trained_model.parameters(), model.parameters(), strict=True):
        momentum = trained_optimizer.state[one]["momentum_buffer"]
        assert torch.equal(momentum, optimizer.state[other]["momentum_buffer"])
    back = load_config(overrides=[]).model_validate(parsed.config)
    different = {key for key, value in flat_settings(CONFIG).items() if flat_settings(back)[key] != value}
    assert different == {"recipe", "optim.scale_lr"}


def test_encoder_alone(
    checkpoint: Path, theirs: dict[str, Any], trained: tuple[HicoModel, LARS], tmp_path: Path
) -> None:
    torch.save(theirs, tmp_path / "theirs.pyth")
    for source in (checkpoint, tmp_path / "theirs.pyth"):
        convert(source, tmp_path / "encoder.safetensors", to="safetensors")
        tensors = load_file(tmp_path / "encoder.safetensors")
        expected = trained[0].backbone.state_dict()
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_exported_program(checkpoint: Path, tmp_path: Path) -> None:
    """It takes clips of any number and size, needs no class of hico, and says what its input is."""
    convert(checkpoint, tmp_path / "encoder.pt2", to="exported")
    about = {"hico.json": ""}
    program = torch.export.load(tmp_path / "encoder.pt2", extra_files=about).module()
    assert json.loads(about["hico.json"]) == ABOUT
    for shape in SHAPES:
        clips = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(program(clips), load_backbone(checkpoint)(clips), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_onnx(tmp_path: Path) -> None:
    """With the small encoder, which takes seconds; `convert` itself compares every program with its encoder."""
    onnxruntime = pytest.importorskip("onnxruntime")
    small = tmp_path / "encoder.safetensors"
    export_encoder(small, S3DGTiny())
    convert(small, tmp_path / "encoder.onnx", to="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert session.get_modelmeta().custom_metadata_map == ABOUT | {"model": "s3dg-tiny"}
    for shape in SHAPES:
        clips = torch.randn(shape)
        (features,) = session.run(None, {"clips": clips.numpy()})
        with torch.no_grad():
            expected = load_backbone(small)(clips)
        assert float((torch.from_numpy(features) - expected).abs().max() / expected.abs().max()) < 1e-4


def test_what_lacks_the_rest_is_refused(checkpoint: Path, theirs: dict[str, Any], tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "encoder.safetensors", to="safetensors")
    target = tmp_path / "out"
    with pytest.raises(HicoError, match="needs a checkpoint of a run"):
        convert(tmp_path / "encoder.safetensors", target, to="authors")
    with pytest.raises(HicoError, match="not a pretraining checkpoint of the authors"):
        convert(checkpoint, target, to="hico")
    torch.save({**without_ours(theirs), "epoch": 6}, tmp_path / "odd.pyth")
    with pytest.raises(HicoError, match="7 epochs, not a multiple of data"):
        convert(tmp_path / "odd.pyth", target, to="hico")
    assert not target.exists()
