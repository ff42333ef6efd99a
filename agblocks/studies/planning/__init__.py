"""From a study to its cells: what each does, beside what, after what."""
