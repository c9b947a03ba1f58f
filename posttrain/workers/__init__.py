"""Worker processes for code of the user, and loading that code."""
