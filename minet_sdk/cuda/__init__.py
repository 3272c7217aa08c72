"""The GPU as the runtime uses it: probe, device layer, arrays in and out. Nothing here is imported on a CPU backend."""
