"""The proof that a file decides as the PyTorch model does."""
