"""From a trained checkpoint to a bundle that `Runtime` opens."""
