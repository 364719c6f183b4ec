"""What a workspace holds and who may write to it."""
