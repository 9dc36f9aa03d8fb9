"""Kinds of failures: each changes a training as the accident would."""
