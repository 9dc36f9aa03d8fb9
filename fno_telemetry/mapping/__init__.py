"""The map of a model: roles, axes and blocks, detected or given by hand."""
