"""Run folders: written, read and the records in their files."""
