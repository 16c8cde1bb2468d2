"""Where work is done and kept."""
