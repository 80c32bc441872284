"""How each kind of layer is quantized."""
