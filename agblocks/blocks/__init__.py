"""Small registered blocks that several architectures share."""
