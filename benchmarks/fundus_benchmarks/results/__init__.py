"""The parts of a run, results that were kept, and how they compare."""
