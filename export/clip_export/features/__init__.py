"""What an encoder says of images and texts, computed once and kept."""
