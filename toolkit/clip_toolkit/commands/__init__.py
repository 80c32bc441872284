"""The command line ``clip-infer``."""
