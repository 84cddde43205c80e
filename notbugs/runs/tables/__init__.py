"""Every table of a run folder, its columns and their types, by subject. `row`: what all rows share. Imports no torch."""
