"""What a model costs: counted, and measured in processes of its own."""
