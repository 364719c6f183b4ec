"""Find videos by name: ids, folders, patterns and lists."""
