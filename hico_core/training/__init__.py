"""Training runs: batches of clips -> checkpoints."""
