"""`python -m proxyds`."""

from proxyds.cli.main import main

main()
