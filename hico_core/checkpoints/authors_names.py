"""The names of the authors' weights <-> ours.

Their file (`checkpoint_epoch_NNNNN.pyth`) holds the weights under `model_state`. The encoder's units have the same
names as ours, and each appears a second time inside a sequential container (`backbone.block3.1` is
`backbone.Mixed_3b`), so about half of the entries are aliases. The heads' names differ from ours.
"""

import logging

import torch
from torch import Tensor

from hico_core.base.errors import HicoError

logger = logging.getLogger(__name__)

# Their containers, in order; a pooling layer has no weights but occupies a position.
_CONTAINERS = {
    "block1": ("Conv_1a",),
    "block2": ("MaxPool_2a", "Conv_2b", "Conv_2c"),
    "block3": ("MaxPool_3a", "Mixed_3b", "Mixed_3c"),
    "block4": ("MaxPool_4a", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    "block5": ("MaxPool_5a", "Mixed_5b", "Mixed_5c"),
}
_UNIT_OF_ALIAS = {f"{block}.{i}": unit for block, units in _CONTAINERS.items() for i, unit in enumerate(units)}
# An entry that exists only under the authors' names.
ALIAS = "block1.0.conv1.weight"

_UNITS = frozenset(_UNIT_OF_ALIAS.values())

_PROJECTION_LAYERS = {
    "linear_a": "linear1",
    "linear_a_bn": "bn1",
    "linear_b": "linear2",
    "linear_b_bn": "bn2",
    "logits_out_b2": "linear3",
}
# Their prefix -> ours, and the names of the layers below it.
_HICO_HEADS = {
    "head.mlp_vcl": ("visual_head", _PROJECTION_LAYERS),
    "head.mlp_tcl.mlp": ("topic_head.projection", _PROJECTION_LAYERS),
    "head.mlp_tcl.topical_predictor": ("topic_head", {"0": "pair", "2": "score"}),
}
_SIMCLR_HEADS = {"head.mlp": ("visual_head", _PROJECTION_LAYERS)}


def _layer_names(heads: dict[str, tuple[str, dict[str, str]]]) -> dict[str, str]:
    """Their layer -> our layer, with full names: `head.mlp_vcl.linear_a` -> `visual_head.linear1`."""
    return {
        f"{theirs}.{their_layer}": f"{ours}.{our_layer}"
        for theirs, (ours, layers) in heads.items()
        for their_layer, our_layer in layers.items()
    }


_OUR_LAYER = _layer_names(_HICO_HEADS) | _layer_names(_SIMCLR_HEADS)


def _our_name(authors_name: str) -> str | None:
    """The name of an entry in a HicoModel, or None if the model has no such entry."""
    layer, _, tensor = authors_name.rpartition(".")
    if layer in _OUR_LAYER:
        return f"{_OUR_LAYER[layer]}.{tensor}"
    if not authors_name.startswith("backbone."):
        return None
    first, _, rest = authors_name.removeprefix("backbone.").partition(".")
    if first in _CONTAINERS:
        place, _, rest = rest.partition(".")
        first = _UNIT_OF_ALIAS.get(f"{first}.{place}", "")
    return f"backbone.{first}.{rest}" if first in _UNITS else None


def import_state_dict(authors_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint of the authors' HiCo or SimCLR model for a `HicoModel`.

    The state may have plain names, container names or both. If both exist and disagree, the container's value is used,
    as in the authors' code, and a warning is logged.

    Raises:
        HicoError: an entry does not exist in a HicoModel.

    """
    state: dict[str, Tensor] = {}
    containers_last = sorted(authors_state, key=lambda name: name.startswith("backbone.block"))
    for authors_name in containers_last:
        ours = _our_name(authors_name)
        if ours is None:
            raise HicoError(f"not a HiCo pretraining checkpoint: it has the entry {authors_name!r}")
        value = authors_state[authors_name]
        if ours in state and not torch.equal(state[ours], value):
            logger.warning("%s differs from its plain name; its value is taken", authors_name)
        state[ours] = value
    return state


def export_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a `HicoModel`'s state to the authors' names, aliases included, in the authors' order.

    Raises:
        HicoError: an entry does not belong to a HicoModel with the paper's parts.

    """
    topical = any(name.startswith("topic_head.") for name in state)
    exported: dict[str, Tensor] = {}
    for block, units in _CONTAINERS.items():
        for container in (False, True):
            for place, unit in enumerate(units):
                prefix = f"backbone.{unit}."
                target = f"backbone.{block}.{place}." if container else prefix
                for name, value in state.items():
                    if name.startswith(prefix):
                        exported[target + name.removeprefix(prefix)] = value
    num_backbone = sum(name.startswith("backbone.") for name in state)
    if len(exported) != 2 * num_backbone:
        raise HicoError("the authors' format needs an S3D-G encoder; this state has other backbone entries")

    for name, value in state.items():
        if not name.startswith("backbone."):
            exported[authors_name(name, topical=topical)] = value
    return exported


def authors_name(name: str, *, topical: bool) -> str:
    """The authors' plain name of an entry of a `HicoModel`, with or without a topical head.

    Raises:
        HicoError: the authors' models have no such entry.

    """
    if name.startswith("backbone."):
        return name
    their_layer = {ours: theirs for theirs, ours in _layer_names(_HICO_HEADS if topical else _SIMCLR_HEADS).items()}
    layer, _, tensor = name.rpartition(".")
    if layer not in their_layer:
        raise HicoError(f"the authors' format has no place for {name!r}")
    return f"{their_layer[layer]}.{tensor}"
