"""Files: found, read as tables, and written whole or not at all."""
