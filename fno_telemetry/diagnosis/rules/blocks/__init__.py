"""Rules about the branches of blocks."""
