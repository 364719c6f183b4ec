"""Checkpoints -> features and what is made of them."""
