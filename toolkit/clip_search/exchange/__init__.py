"""Embeddings between an index and other programs."""
