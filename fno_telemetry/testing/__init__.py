"""Tests for plug-ins of every kind: a plug-in that passes them behaves as the rest of the package expects."""
