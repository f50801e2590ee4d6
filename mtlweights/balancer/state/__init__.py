"""What outlives a backward: proposed by it, committed once the optimizer has stepped, saved and loaded."""
