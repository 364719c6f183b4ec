"""The encoders that there are, ours and public ones: how each is built, and what it is shown."""
