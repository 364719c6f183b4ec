"""What everything stands on: errors, places and files, and the engine for many restartable videos."""
