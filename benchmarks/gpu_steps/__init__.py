"""The steps of `benchmarks/gpu_check.py`: one module a step, each run in a process of its own."""
