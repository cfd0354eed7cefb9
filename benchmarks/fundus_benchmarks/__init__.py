"""What the benchmarks share: models, contenders, turns, bars."""
