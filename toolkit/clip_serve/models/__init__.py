"""Model files, opened, shared between requests, and replaced while they are used."""
