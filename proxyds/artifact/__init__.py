"""The proxy's files: written, read, shown."""
