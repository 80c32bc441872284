"""Search encoder, depth, pooling, precision and head for the fastest file that still decides right."""
