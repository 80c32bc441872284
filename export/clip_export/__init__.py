"""Train heads on frozen image encoders, and export both as one proved ONNX file. Needs the ``export`` extra."""
