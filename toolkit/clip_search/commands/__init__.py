"""The command line ``clip-search``."""
