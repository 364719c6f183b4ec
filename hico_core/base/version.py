"""The version of hico, as its files record it."""

__version__ = "0.1.0"
