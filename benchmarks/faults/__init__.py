"""What becomes of the other tasks: the core of the catalogue of faults, played with ours and with every peer."""
