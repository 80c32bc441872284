"""The command line ``clip-scale``."""

PROGRAM = "clip-scale"
