"""Trainings that fail as people make them fail by accident, healthy ones beside them, and their judge."""
