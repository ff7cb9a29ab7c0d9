"""What is said about settings: where each came from, what is wrong with them, what may be set at all."""
