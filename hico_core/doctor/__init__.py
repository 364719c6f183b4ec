"""Checks of the machine, and how fast it loads clips."""
