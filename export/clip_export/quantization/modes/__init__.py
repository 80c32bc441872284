"""The number formats that a file can be quantized to."""
