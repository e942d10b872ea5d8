"""The journal of a checkpoint: outcomes are recorded in a file, and recalled from it by a later run."""
