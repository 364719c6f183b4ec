"""Where actions are in untrimmed videos: annotated segments, and what detection toolkits read."""
