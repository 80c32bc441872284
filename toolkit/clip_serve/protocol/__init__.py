"""The wire form of the Open Inference Protocol: tensors as JSON, or binary behind it."""
