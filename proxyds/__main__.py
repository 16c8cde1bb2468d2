"""`python -m proxyds`."""

from proxyds.cli import main

main()
