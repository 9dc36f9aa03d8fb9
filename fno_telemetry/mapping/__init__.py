"""What each module of a model is: its role, its axes, its blocks, and how to state them by hand."""
