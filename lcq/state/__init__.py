"""Redis decides: the keys, the moves, the one writer and the one reader."""
