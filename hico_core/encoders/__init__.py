"""The available encoders, ours and public ones: how each is built, and what input it takes."""
