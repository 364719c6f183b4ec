"""The index -> batches of clips."""
