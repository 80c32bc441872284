"""The activations of heads. Without torch, so that ``--help`` need not wait for it."""

ACTIVATIONS = {
    "relu": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "Tanh",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "sigmoid": "Sigmoid",
}
"""Names that ``--activation`` takes, and the classes of `torch.nn`, each with PyTorch's default parameters."""
