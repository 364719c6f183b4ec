"""Temporal localisation in untrimmed videos: annotated segments, and the input of detection toolkits."""
