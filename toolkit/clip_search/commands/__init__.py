"""The command line ``clip-search``."""

PROGRAM = "clip-search"
