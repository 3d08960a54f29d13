"""What tests share: servers that speak the real wires, sample records, runs of a known truth."""
