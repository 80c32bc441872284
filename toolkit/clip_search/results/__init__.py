"""What a search found, and how it is shown."""
