"""A run: assembled, driven in the caller's thread or in its own, and concluded."""
