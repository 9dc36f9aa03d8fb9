"""From options to records: input and models prepared, one checkpoint captured after the other."""
