"""The promises of every kind of adapter, each a function from a trial that raises `Broken`."""
