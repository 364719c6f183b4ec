"""Clips -> embeddings -> loss. Tensors in, tensors out: no files, no process group."""
