"""Self-supervised video pretraining from untrimmed videos (HiCo, Qing et al., CVPR 2022)."""

__version__ = "0.1.0"
