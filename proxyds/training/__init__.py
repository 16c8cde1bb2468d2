"""Networks trained and asked."""
