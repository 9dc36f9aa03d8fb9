"""Rules about weights, modes and gradients."""
