"""The face of LCQ: the console, a keyboard-driven terminal UI. Reads state, commands schedulers, changes nothing."""
