"""The promises that hold for every block, head and composite, each a function from a case that raises `Broken`."""
