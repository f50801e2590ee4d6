"""Files, written and read with care: whole or not at all, in the expected shape, harmless to look at."""
