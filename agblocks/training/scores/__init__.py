"""How well predictions agree with measurements: numbers, intervals, figures."""
