"""Follows one forward: what calls what, what descends from what, which axis is which."""
