"""Videos on disk -> clips and their index; imports no torch."""
