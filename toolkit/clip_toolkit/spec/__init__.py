"""The contract between a model file and every app: its metadata."""
