"""A checkpoint says what it is, and whether something about its weights is odd."""

from pathlib import Path

import pytest
import torch
from made_checkpoints import save_checkpoint

from hico_core.base.errors import HicoError
from hico_core.checkpoints.authors_names import export_state_dict
from hico_core.checkpoints.content import Progress, export_encoder
from hico_core.checkpoints.convert import convert
from hico_core.checkpoints.describe import describe_checkpoint
from hico_core.config import load_finetuning_config, preset
from hico_core.data.plan import Position
from hico_core.model.classifier import VideoClassifier
from hico_core.model.hico import HicoModel
from hico_core.training.optim import LARS, parameter_groups


@pytest.fixture
def model() -> HicoModel:
    model = HicoModel()
    for name, parameter in model.named_parameters():
        if ".bn" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 0.1)
    return model


@pytest.mark.slow
def test_a_finetuned_one(tmp_path: Path) -> None:
    classifier = VideoClassifier(5)
    save_checkpoint(
        tmp_path / "last.pt",
        model=classifier,
        optimizer=torch.optim.Adam(classifier.parameters()),
        progress=Progress(position=Position(3, 0, 3), epochs_done=1.5),
        config=load_finetuning_config(base="finetune-ucf101").model_dump(mode="json"),
    )
    kind, facts, *_ = describe_checkpoint(tmp_path / "last.pt")
    assert kind == "hico finetuning checkpoint"
    assert (facts["recipe"], facts["step"], facts["parts"]) == ("finetune-ucf101", 3, "backbone, out")
    with pytest.raises(HicoError, match="is a finetuning checkpoint"):
        convert(tmp_path / "last.pt", tmp_path / "last.pyth", to="authors")
    assert not (tmp_path / "last.pyth").exists()


@pytest.mark.slow
def test_a_checkpoint_of_ours(model: HicoModel, tmp_path: Path) -> None:
    config = preset("k400-hico-l")
    save_checkpoint(
        tmp_path / "last.pt",
        model=model,
        optimizer=LARS(parameter_groups(model, weight_decay=0.0, lars_exclude_bn=True), lr=0.1),
        progress=Progress(position=Position(12, 0, 12), bad_videos=["a"], world_size=4, epochs_done=2.5),
        config=config.model_dump(mode="json"),
    )
    kind, facts, warnings, _ = describe_checkpoint(tmp_path / "last.pt")
    assert kind == "hico checkpoint"
    assert (facts["recipe"], facts["step"], facts["epochs done"], facts["processes"]) == ("k400-hico-l", 12, 2.5, 4)
    assert facts["videos that could not be decoded"] == 1
    assert facts["parts"] == "backbone, topic_head, visual_head"
    assert warnings == []


@pytest.mark.slow
@pytest.mark.parametrize(("topical", "kind"), [(True, "HiCo"), (False, "SimCLR")])
def test_files_of_the_authors(topical: bool, kind: str, tmp_path: Path) -> None:
    model = HicoModel(topical=topical)
    torch.save({"epoch": 9, "model_state": export_state_dict(model.state_dict())}, tmp_path / "theirs.pyth")
    found = describe_checkpoint(tmp_path / "theirs.pyth")
    assert kind in found.kind and found.facts["whole epochs done"] == 10
    # Aliases are not counted twice.
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert found.facts["numbers"] == sum(value.numel() for value in floats)
    assert any("biases are 0" in warning for warning in found.warnings)


def test_an_encoder_with_a_broken_number(model: HicoModel, tmp_path: Path) -> None:
    with torch.no_grad():
        model.backbone.get_parameter("Conv_2b.conv.weight")[0] = torch.nan
    export_encoder(tmp_path / "encoder.safetensors", model.backbone)
    with pytest.raises(HicoError, match=r"encoder\.safetensors: Conv_2b\.conv\.weight has values that are not finite"):
        describe_checkpoint(tmp_path / "encoder.safetensors")


def test_no_weights(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt")
    with pytest.raises(HicoError, match="contains no weights"):
        describe_checkpoint(tmp_path / "a.pt")
