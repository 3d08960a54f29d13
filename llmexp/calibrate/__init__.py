"""The client's own error on this machine: `python -m llmexp.calibrate`."""
