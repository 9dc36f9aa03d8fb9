"""Measures while a model runs, and builds the record from what was measured."""
