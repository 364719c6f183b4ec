"""Videos on disk -> clips and their index. No torch in here."""
