"""Train a head on the features of a frozen encoder, and judge it."""
