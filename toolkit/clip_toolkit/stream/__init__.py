"""Classifying more images than fit into memory: inputs, order, interruption, resumption and output."""
