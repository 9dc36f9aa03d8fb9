"""Where arrays, weights and networks come from."""
