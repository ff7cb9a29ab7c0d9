"""Tests of the console: its store and view without a terminal, its screens through Pilot."""
