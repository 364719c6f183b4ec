"""The records and commits of a workspace, and the locks that protect it."""
