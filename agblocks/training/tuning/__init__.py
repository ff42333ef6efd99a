"""What of a model trains, from when, how fast and from which values: a `transfer:` section, and what it comes to."""
