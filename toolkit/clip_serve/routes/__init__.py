"""The endpoints, by the protocol they belong to."""
