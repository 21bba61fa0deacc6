"""Floor 2: decisions. No thread, no socket; time is an argument."""
