"""Checkpoints of the authors come in and go out under the right names, and nothing in a file is executed."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import authors_state, load_json

from hico_core.base.errors import HicoError
from hico_core.checkpoints.authors_names import export_state_dict, import_state_dict
from hico_core.checkpoints.content import export_encoder
from hico_core.checkpoints.reading import load_backbone
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg_tiny import S3DGTiny

NAMES = load_json("state_dict_names.json")


@pytest.mark.parametrize(("kind", "topical"), [("pretrain_hico", True), ("pretrain_simclr", False)])
def test_export_has_exactly_their_entries(kind: str, topical: bool) -> None:
    exported = export_state_dict(HicoModel(topical=topical).state_dict())
    assert [(name, list(value.shape)) for name, value in exported.items()] == [
        (name, shape) for name, shape, _ in NAMES[kind]
    ]


@pytest.mark.parametrize("kind", ["pretrain_hico", "pretrain_simclr"])
def test_import_is_the_inverse_of_export(kind: str) -> None:
    state = import_state_dict(authors_state(kind, 3))
    again = import_state_dict(export_state_dict(state))
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_aliases_alone_will_do() -> None:
    exported = export_state_dict(HicoModel().state_dict())
    aliases = {name: value for name, value in exported.items() if not name.startswith(("backbone.C", "backbone.M"))}
    assert len(aliases) == len(exported) - 534
    HicoModel().load_state_dict(import_state_dict(aliases))


def test_where_aliases_disagree_theirs_wins_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    exported = export_state_dict(HicoModel().state_dict())
    alias = "backbone.block1.0.conv1.weight"
    exported[alias] = exported[alias] + 1
    state = import_state_dict(dict(reversed(exported.items())))
    assert torch.equal(state["backbone.Conv_1a.conv1.weight"], exported[alias])
    assert alias in caplog.text


def test_strange_entries_are_named() -> None:
    with pytest.raises(HicoError, match=r"head\.out\.weight"):
        import_state_dict({"head.out.weight": torch.zeros(1)})
    with pytest.raises(HicoError, match=r"backbone\.block9\.0\.x"):
        import_state_dict({"backbone.block9.0.x": torch.zeros(1)})
    with pytest.raises(HicoError, match="mystery"):
        export_state_dict({**HicoModel().state_dict(), "mystery.weight": torch.zeros(1)})


@pytest.fixture(scope="module")
def model() -> HicoModel:
    model = HicoModel()
    model.load_state_dict(import_state_dict(authors_state("pretrain_hico", 5)))
    return model


def write_theirs(path: Path, model: HicoModel) -> None:
    torch.save({"epoch": 9, "model_state": export_state_dict(model.state_dict()), "cfg": "{}"}, path)


def write_finetuned(path: Path, model: HicoModel) -> None:
    exported = export_state_dict(model.state_dict())
    state = {name: value for name, value in exported.items() if name.startswith("backbone.")}
    torch.save({"model_state": {**state, "head.out.weight": torch.zeros(51, 1024)}}, path)


def write_ours(path: Path, model: HicoModel) -> None:
    torch.save({"format": "hico-checkpoint-1", "model": model.state_dict()}, path)


def write_encoder(path: Path, model: HicoModel) -> None:
    export_encoder(path, model.backbone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("checkpoint_epoch_00010.pyth", write_theirs),
        ("finetuned.pyth", write_finetuned),
        ("last.pt", write_ours),
        ("encoder.safetensors", write_encoder),
    ],
)
def test_load_backbone_takes_every_kind(tmp_path: Path, model: HicoModel, name: str, write: object) -> None:
    assert callable(write)
    write(tmp_path / name, model)
    backbone = load_backbone(tmp_path / name)
    assert not backbone.training
    expected = model.backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pyth"
    torch.save({"model_state": Attack()}, path)
    with pytest.raises(HicoError, match=r"evil\.pyth: not a checkpoint that can be read safely"):
        load_backbone(path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(HicoError, match=r"evil\.pt: not a checkpoint"):
        load_backbone(tmp_path / "evil.pt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    with pytest.raises(HicoError, match=f"{name}: no such file"):
        load_backbone(tmp_path / name)
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(HicoError, match=f"{name}: not a checkpoint"):
        load_backbone(tmp_path / name)


def test_a_backbone_must_be_whole(tmp_path: Path, model: HicoModel) -> None:
    state = model.state_dict()
    del state["backbone.Mixed_5c.branch0.0.bn.bias"]
    torch.save({"model": state}, tmp_path / "part.pt")
    with pytest.raises(HicoError, match=r"Mixed_5c\.branch0\.0\.bn\.bias is missing; 1 such"):
        load_backbone(tmp_path / "part.pt")
    torch.save({"model": {"visual_head.x": torch.zeros(1)}}, tmp_path / "none.pt")
    with pytest.raises(HicoError, match="contains no S3D-G"):
        load_backbone(tmp_path / "none.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(HicoError, match="contains a list"):
        load_backbone(tmp_path / "list.pt")


PREFIXES = [
    *("module.", "_orig_mod.", "encoder_q.", "backbone.", "module.backbone.", "module._orig_mod.backbone."),
    *("module.encoder_q.", "encoder_q.0.", "module.encoder_q.0.", "model.backbone.", "backbone._orig_mod."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_prefixes_of_other_frameworks_are_taken_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str, key: str | None
) -> None:
    encoder = S3DGTiny()
    state = {f"{prefix}{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"{prefix.replace('encoder_q', 'encoder_k')}fc.weight": torch.zeros(1), "queue": torch.zeros(3, 4)}
    if "encoder_q" in prefix:  # the slow twin of momentum contrast
        state |= {name.replace("encoder_q", "encoder_k"): value + 1 for name, value in state.items()}
    elif prefix == "backbone.":
        state.pop("backbone.fc.weight")
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "theirs.pth")
    loaded = load_backbone(tmp_path / "theirs.pth").state_dict()
    assert loaded.keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in encoder.state_dict().items())
    assert ("ignored 1 entries not in the encoder, such as fc.weight" in caplog.text) == (
        "encoder_q" not in prefix and prefix != "backbone."
    )


@pytest.mark.slow
def test_authors_checkpoints_of_several_processes(tmp_path: Path, model: HicoModel) -> None:
    """Under both names of each unit, or under the second alone."""
    exported = {f"module.{name}": value for name, value in export_state_dict(model.state_dict()).items()}
    plain = ("module.backbone.C", "module.backbone.M")
    for state in (exported, {name: value for name, value in exported.items() if not name.startswith(plain)}):
        torch.save({"model_state": state}, tmp_path / "theirs.pyth")
        loaded = load_backbone(tmp_path / "theirs.pyth").state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in model.backbone.state_dict().items())


def test_what_stands_before_an_encoder_is_named(tmp_path: Path) -> None:
    state = S3DGTiny().state_dict()
    for names, told in (
        (["student"], "an encoder with the prefix 'student.'"),
        (["module", "encoder_q"], "several encoders, with the prefixes 'module.' and 'encoder_q.'"),
    ):
        content = {f"{name}.{key}": value for name in names for key, value in state.items()}
        torch.save(content, tmp_path / "theirs.pth")
        with pytest.raises(HicoError, match=f"theirs.pth: contains {told}; save the weights of one"):
            load_backbone(tmp_path / "theirs.pth")
    torch.save({"patch_embed.weight": torch.zeros(2)}, tmp_path / "vit.pth")
    with pytest.raises(HicoError, match=r"no S3D-G encoder \(no entry Conv_1a.conv1.weight, but patch_embed.weight\)"):
        load_backbone(tmp_path / "vit.pth")


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ({"acc": np.float64(0.5)}, ["scalar"]),
        ({"args": argparse.Namespace(lr=0.1)}, ["argparse.Namespace"]),
        ({"args": argparse.Namespace(lr=0.1), "where": Path("here")}, ["argparse.Namespace", "pathlib"]),
    ],
)
def test_what_cannot_be_read_safely_is_named(tmp_path: Path, beside: dict[str, object], names: list[str]) -> None:
    torch.save({"state_dict": S3DGTiny().state_dict(), **beside}, tmp_path / "theirs.pth")
    with pytest.raises(HicoError) as caught:
        load_backbone(tmp_path / "theirs.pth")
    told = str(caught.value)
    assert "besides tensors, it contains " in told and all(name in told for name in names)
    assert told.isprintable() and "weights_only=False" in told and "two options" not in told
