"""One video -> its clips: probed, planned, encoded, verified."""
