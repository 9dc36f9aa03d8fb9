"""Leaves no mark on model, process or compiler, whatever runs in between."""
