"""Quantization that keeps its word: smaller and faster files, judged by their decisions on real images."""
