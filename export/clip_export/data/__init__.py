"""Labelled data sets: reading them and splitting them."""
