"""PyTorch side: MINet, its data, training and checkpoints. Nothing in `minet_sdk` below imports it at import time."""
