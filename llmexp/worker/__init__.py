"""What runs beside the clock: it sends prepared bytes, stamps arriving bytes, and does nothing else."""
