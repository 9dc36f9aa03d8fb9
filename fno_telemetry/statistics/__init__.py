"""The statistics, one per file: each measures a subject, merges states and summarizes them."""
