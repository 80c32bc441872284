"""The command lines ``clip-train`` and ``clip-export``."""

TRAIN = "clip-train"
EXPORT = "clip-export"
