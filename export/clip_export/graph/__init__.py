"""Encoder, head and preprocessing as one ONNX graph."""
