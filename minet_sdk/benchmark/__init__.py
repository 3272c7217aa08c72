"""Latency of a bundle on every engine that is here, side by side: a process each, interleaved rounds."""
