"""A room for each chapter: what it alone needs. A chapter uses no other; what two of them need is an instrument."""
