"""Evaluate a model file on labelled images, or compare two: ``clip-eval`` (docs/evaluation.md)."""
