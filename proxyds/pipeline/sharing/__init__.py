"""Proxies travel: to the Hub and other addresses, and back."""
