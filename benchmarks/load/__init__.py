"""Three ways to ask: as fast as the connections allow (closed), one at a time (serial), at a given rate (openloop)."""
