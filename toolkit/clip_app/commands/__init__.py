"""The command line ``clip-app``."""

PROGRAM = "clip-app"
