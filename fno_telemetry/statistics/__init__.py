"""What is measured, a statistic a file: each measures a tensor, merges its states, and summarizes them."""
