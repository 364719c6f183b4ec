"""Clips -> embeddings -> loss: tensors in, tensors out, without files or process groups."""
