"""A function of anybody's is an encoder, if it returns a network or an entry."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hico_core.base.errors import HicoError, UsageError
from hico_core.checkpoints.frozen import load_frozen
from hico_core.encoders.table import ENCODERS

MODULE = """
import torch
from dataclasses import replace
from torch import nn
from hico_core.encoders.table import ENCODERS

class Scaled(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, clips):
        return clips.mean(dim=(2, 3, 4)) * self.weight

def fixed():
    return Scaled(torch.full((3,), 2.0))

def chance():
    return Scaled(torch.rand(3))

def entry():
    return replace(ENCODERS["pixels"], build=fixed, feature_dim=3)

def entry_by_chance():
    return replace(entry(), build=chance)

def flat():
    return nn.Flatten(0)

def number():
    return 3

def fails():
    return open("no weights here")

def wants(weights):
    return Scaled(weights)

class Named(nn.Module):
    def forward(self, clips):
        return {"features": clips.mean(dim=(2, 3, 4))}

def named():
    return Named()

def eight():
    return nn.Sequential(nn.Flatten(1), nn.Linear(3 * 8 * 112 * 112, 2))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_encoders.py").write_text(MODULE)
    (tmp_path / "broken_encoders.py").write_text("def broken(:")
    (tmp_path / "older_encoders.py").write_text("from torch import renamed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("own_encoders", None)


def test_a_network_is_shown_what_the_paper_s_is() -> None:
    said: list[str] = []
    encoder = load_frozen("python:own_encoders:fixed", warn=said.append)
    assert said == ["python:own_encoders:fixed: runs your own code"]
    entry, paper = encoder.entry, ENCODERS["s3dg"]
    assert (entry.picture, entry.clip, entry.gives, entry.feature_dim) == (paper.picture, paper.clip, "rows", 3)
    assert torch.equal(encoder.network(torch.ones(1, 3, 2, 4, 4)), torch.full((1, 3), 2.0))
    assert encoder.origin is not None
    assert encoder.origin.path == ""
    assert load_frozen(encoder.text, warn=said.append).sha256 == encoder.sha256


def test_an_entry_says_itself_what_it_is_shown() -> None:
    encoder = load_frozen("python:own_encoders:entry")
    assert encoder.entry.picture == ENCODERS["pixels"].picture
    assert encoder.network(torch.ones(1, 3, 2, 4, 4)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("function", ["chance", "entry_by_chance"])
def test_weights_may_be_random_if_that_is_said(function: str) -> None:
    encoders = [load_frozen(f"python:own_encoders:{function}=random") for _ in range(2)]
    assert encoders[0].sha256 == encoders[1].sha256


def test_weights_may_be_a_file(folder: Path) -> None:
    torch.save({"weight": torch.tensor([1.0, 2.0, 3.0])}, folder / "own.pt")
    encoder = load_frozen("python:own_encoders:chance=own.pt")
    assert encoder.network(torch.ones(1, 3, 2, 4, 4)).tolist() == [[1.0, 2.0, 3.0]]
    assert encoder.origin is not None
    assert encoder.origin.path == str(folder / "own.pt")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("own_encoders:chance", "gets different weights on each call"),
        ("own_encoders:entry_by_chance", "gets different weights on each call"),
        ("own_encoders:number", "returned a int, not a network"),
        ("own_encoders:flat", "neither a row"),
        ("own_encoders:named", "returned a dict for a clip, neither a row"),
        ("own_encoders:eight", "does not accept a clip of 16 frames of "),
        ("own_encoders:eight", "; return an EncoderEntry to set frames and pixels"),
        (".own_encoders:fixed", "no such function; write python:package.module:function"),
        ("broken_encoders:broken", "cannot be imported (invalid syntax (broken_encoders.py, line 1)); mend the module"),
        ("older_encoders:fixed", "cannot be imported (cannot import name 'renamed' from 'torch'"),
        ("own_encoders:fails", "failed with FileNotFoundError: No such file or directory; mend the function"),
        ("own_encoders:wants", "failed with TypeError: wants() missing 1 required positional argument"),
        ("own_encoders:nothing", "no such function"),
        ("own_encoders", "no such function"),
        ("no_such_module:fixed", "No module named 'no_such_module'"),
    ],
)
def test_what_is_refused(function: str, said: str) -> None:
    with pytest.raises(HicoError) as refused:
        load_frozen(f"python:{function}")
    assert isinstance(refused.value, UsageError)
    assert said in str(refused.value)
    assert json.dumps(str(refused.value)).count("\\n") == 0
