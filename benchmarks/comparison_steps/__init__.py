"""The parts of `benchmarks/comparison.py`: what is run, training, testing, the report."""
