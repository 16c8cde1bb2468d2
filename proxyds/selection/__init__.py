"""From probes to a drawn subset."""
