"""The sections of the benchmark, a file each. The chapters call the same generators with smaller settings."""
