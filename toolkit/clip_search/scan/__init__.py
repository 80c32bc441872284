"""The exact scan over an index's vectors."""
