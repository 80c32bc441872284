"""Heads: their network, their files, and other ways to one."""
