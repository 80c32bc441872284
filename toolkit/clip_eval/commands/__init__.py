"""The command line ``clip-eval``."""

PROGRAM = "clip-eval"
