"""The command line ``clip-serve``."""

PROGRAM = "clip-serve"
