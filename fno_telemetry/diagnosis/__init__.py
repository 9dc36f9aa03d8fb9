"""Says what is wrong: rules read a record, or a series of records, and findings are ordered by cause."""
