"""The W&B sink: into a run of the caller, or into runs of its own."""
