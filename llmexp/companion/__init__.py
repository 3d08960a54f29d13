"""A worker's other half, in a process of its own at low priority: prepares requests and explains tapes."""
