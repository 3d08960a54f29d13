"""One job, a sweep of them, a capacity search."""
