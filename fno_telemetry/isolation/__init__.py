"""Keeps a capture from changing the model, the process or compiled code."""
