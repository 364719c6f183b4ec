"""Self-supervised video pretraining from untrimmed videos (HiCo, Qing et al., CVPR 2022).

The whole road, from here: split_videos, build_index, pretrain, extract_features; FeatureExtractor, FeatureDataset and
load_backbone for what comes of it.
"""

from typing import TYPE_CHECKING

from hico_core.base.lazy import lazy_names
from hico_core.base.version import __version__ as __version__

if TYPE_CHECKING:
    from hico_core.checkpoints.reading import load_backbone
    from hico_core.corpus.index import build_index
    from hico_core.corpus.split import split_videos
    from hico_core.training.loop import pretrain
    from hico_core.transfer.extraction.extract import extract_features
    from hico_core.transfer.feature_dataset import FeatureDataset
    from hico_core.transfer.features import FeatureExtractor

__all__ = [
    "FeatureDataset",
    "FeatureExtractor",
    "build_index",
    "extract_features",
    "load_backbone",
    "pretrain",
    "split_videos",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is a mistake
    __getattr__ = lazy_names(
        __name__,
        {
            "FeatureDataset": "hico_core.transfer.feature_dataset",
            "FeatureExtractor": "hico_core.transfer.features",
            "build_index": "hico_core.corpus.index",
            "extract_features": "hico_core.transfer.extraction.extract",
            "load_backbone": "hico_core.checkpoints.reading",
            "pretrain": "hico_core.training.loop",
            "split_videos": "hico_core.corpus.split",
        },
    )
