"""Other steps and other batches for the same training loop: faster, or on many devices at once."""
