"""The card: its text and its pictures."""
