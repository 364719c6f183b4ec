"""Encode whole videos: windows, worker lanes, batches and devices."""
