"""The command lines ``clip-train`` and ``clip-export``."""
