"""Encoders from their checkpoints: finding, reading and saving them, family by family."""
