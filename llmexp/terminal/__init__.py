"""What a person at a terminal sees: progress while a job runs, its table when it is over."""
