"""What a quantized file is tuned on and judged by."""
