"""What strangers may send, mutated without end: ``make fuzz``, and a short run of the same in the suite."""
