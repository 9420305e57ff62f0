"""What measures the training, records it, and draws it."""
