"""What one misbehaving task does to the others: the core of the fault catalogue, run with ours and with every peer."""
