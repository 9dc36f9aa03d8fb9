"""Rules about a run over its steps."""
