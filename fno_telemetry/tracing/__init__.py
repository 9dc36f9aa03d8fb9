"""Follows one forward: the module calls, the lineage of tensors, the branch sums and the axes."""
