"""Batches -> checkpoints."""
