"""The search space: its networks, their choices and their cost."""
