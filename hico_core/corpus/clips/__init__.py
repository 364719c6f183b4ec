"""One video -> its clips: looked at, planned, encoded, verified."""
