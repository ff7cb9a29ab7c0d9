"""The command line: lcq."""
