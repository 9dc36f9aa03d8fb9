"""What changed between reports, where first, since when, and whether it is worse; no torch needed."""
