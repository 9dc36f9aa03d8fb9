"""What can be typed: groups of options, the signatures made of them, and files that hold options."""
