"""Rules about what single layers return."""
