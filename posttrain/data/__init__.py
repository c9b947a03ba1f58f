"""Data: readers, row formats, built-in tasks, validation, packing."""
