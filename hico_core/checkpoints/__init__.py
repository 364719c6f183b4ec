"""Weights in files, ours and the authors': reading, writing, exporting and converting them."""
