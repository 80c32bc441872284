"""The command line ``clip-infer``."""

PROGRAM = "clip-infer"
