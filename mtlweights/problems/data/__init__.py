"""Where problems come from: built-in data, users' own files, and how examples become tensors."""
