"""Initialise an encoder with the weights of a file, whose names may differ from the encoder's."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.checkpoints.authors_names import ALIAS
from hico_core.checkpoints.content import EncoderOrigin
from hico_core.checkpoints.reading import (
    OWN_PREFIXES,
    CheckpointFile,
    prefix_of_encoder,
    weights_in,
    without_prefix,
)
from hico_core.model.s3dg import S3DG

# An entry that only torchvision's s3d has.
_TORCHVISION_S3D = "features.0.0.0.weight"


class WarmStart(NamedTuple):
    """The weights that an encoder takes from a file."""

    weights: dict[str, Tensor]  # all of the encoder's entries, by its names
    left_out: dict[str, int]  # entries that the encoder does not have, counted by the first part of their names
    origin: EncoderOrigin  # the file

    def __str__(self) -> str:
        """A summary in words."""
        left_out = f" ({', '.join(sorted(self.left_out))})" if self.left_out else ""
        return f"{len(self.weights)} entries loaded, {sum(self.left_out.values())} left out{left_out}, none missing"


def warm_start(file: CheckpointFile, encoder: nn.Module, *, name: str) -> WarmStart:
    """Find the weights of an encoder in a file; prefixes that frameworks add to names are removed.

    Args:
        file: ours, the authors', or of another framework, such as torchvision's Kinetics weights of the same network;
            for S3D-G without gates, also the weights of torchvision's s3d.
        encoder: the encoder; its weights are not changed.
        name: the encoder's name.

    Raises:
        HicoError: some entries are missing from the file, or have another shape.

    """
    own = encoder.state_dict()
    state = weights_in(file.content, file.path)
    is_s3dg = isinstance(encoder, S3DG)
    prefix = next((prefix for prefix in OWN_PREFIXES if all(prefix + entry in state for entry in own)), None)
    if prefix is None:
        marks = (next(iter(own)), *((ALIAS, _TORCHVISION_S3D) if is_s3dg else ()))
        prefix = prefix_of_encoder(state, marks, name=name, origin=file.path)
    found = without_prefix(state, prefix)
    if is_s3dg and _TORCHVISION_S3D in found:
        units = [unit for unit, _ in encoder.named_children()]
        found = {_name_in_s3dg(entry, units): value for entry, value in found.items()}
    weights = {entry: found[entry] for entry in own if entry in found and found[entry].shape == own[entry].shape}
    others = [entry for entry in state if not entry.startswith(prefix)] + [entry for entry in found if entry not in own]
    if len(weights) < len(own):
        lacking = next(entry for entry in own if entry not in weights)
        shapes = [tuple(state[lacking].shape) for state in (found, own) if lacking in found]
        what = f"{lacking} is {shapes[0]} instead of {shapes[1]}" if shapes else f"{lacking} is missing"
        raise HicoError(
            f"{file.path}: does not fit {name}: {what}; {len(weights)} entries loaded, {len(others)} left out, "
            f"{len(own) - len(weights)} missing"
        )
    parts = [entry.removeprefix(prefix).split(".")[0] for entry in others]
    origin = EncoderOrigin(path=str(file.path.absolute()), sha256=file.sha256)
    return WarmStart(weights, {part: parts.count(part) for part in parts}, origin)


def _name_in_s3dg(name: str, units: Sequence[str]) -> str:
    """The S3D-G name of an entry of torchvision's s3d, whose units are numbered and whose layers are sequences.

    features.2.0.weight -> Conv_2b.conv.weight            features.5.branch1.0.1.bias -> Mixed_3b.branch1.0.bn.bias
    features.0.1.0.weight -> Conv_1a.conv2.weight         features.5.branch1.1.0.1.bias -> Mixed_3b.branch1.1.bn1.bias

    Args:
        name: torchvision's name; names in its classifier, which S3D-G does not have, are returned unchanged.
        units: names of S3D-G's units, in order.

    """
    if not name.startswith("features."):
        return name
    number, *path, layer, tensor = name.split(".")[1:]
    ours = ("conv", "bn")[int(layer)]
    if path == ["branch0"]:
        path.append("0")
    elif len(path) % 2:  # one of the two convolutions of a separable one
        ours += str(int(path.pop()) + 1)
    return ".".join([units[int(number)], *path, ours, tensor])
