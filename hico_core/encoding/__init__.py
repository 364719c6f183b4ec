"""Whole videos through an encoder: windows, lanes, batches, devices."""
