"""The parts of the scheduler: which attempt may start next, and what follows when one has failed."""
