"""The parts of the console's screens: values go down into them, wishes come up as messages."""
