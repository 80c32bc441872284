"""Labelled images: what a folder or a manifest holds."""
