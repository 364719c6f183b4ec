"""Videos by their names: ids, folders, patterns and lists."""
