"""Where records go: one sink a file, each fed the same finished record."""
