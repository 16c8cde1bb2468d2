"""The verbs: only these join rooms."""
