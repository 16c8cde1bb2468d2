"""A folder, surveyed before it is read: which files are used, for what and by which rule, and what is left over. See `docs/sources.md`."""
