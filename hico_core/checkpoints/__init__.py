"""Weights in files: ours and the authors', read, written, exported and converted."""
