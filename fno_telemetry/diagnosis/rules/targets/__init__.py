"""Rules about the target, and about the output compared with it."""
