"""Ridge regression in closed form, on any features: what a network has to beat, and how a frozen one is probed."""
