"""The version of hico, as files of it name it."""

__version__ = "0.1.0"
