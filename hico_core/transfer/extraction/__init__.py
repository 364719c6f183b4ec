"""Extraction of features of whole videos into files."""
