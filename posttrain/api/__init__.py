"""Python's side of the commands. `import posttrain` offers it; docs/api.md says what of it is stable."""
