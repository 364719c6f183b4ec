"""Features of whole videos in files."""
