"""The command lines ``clip-train``, ``clip-export`` and ``clip-tune``."""

TRAIN = "clip-train"
EXPORT = "clip-export"
TUNE = "clip-tune"
