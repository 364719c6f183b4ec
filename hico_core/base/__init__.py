"""The foundation of all other packages: errors, places and files, and the engine for restartable work on videos."""
