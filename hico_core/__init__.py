"""Self-supervised video pretraining from untrimmed videos (HiCo, Qing et al., CVPR 2022).

The whole road, from here: split_videos, build_index, pretrain, extract_features; FeatureExtractor and load_backbone for
what comes of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hico_core.corpus.index import build_index
    from hico_core.corpus.split import split_videos
    from hico_core.interop import load_backbone
    from hico_core.training.loop import pretrain
    from hico_core.transfer.extraction.extract import extract_features
    from hico_core.transfer.features import FeatureExtractor

__version__ = "0.1.0"

__all__ = ["FeatureExtractor", "build_index", "extract_features", "load_backbone", "pretrain", "split_videos"]

_HOME = {
    "FeatureExtractor": "transfer.features",
    "build_index": "corpus.index",
    "extract_features": "transfer.extraction",
    "load_backbone": "interop",
    "pretrain": "training.loop",
    "split_videos": "corpus.split",
}


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is a mistake

    def __getattr__(name: str) -> object:
        """What is imported from here is loaded when it is asked for: PyTorch and pandas take seconds to load."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
