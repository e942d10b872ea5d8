"""The input of a run: read lazily, in portions, and made into tasks, each under its key."""
