"""`hico run`: the whole pipeline in one call, measured, planned and run within the given hours."""
