"""What is learned: pairs of fields made by code, in physical units, the same for a seed on every machine."""
