"""What a proxy is made from."""
