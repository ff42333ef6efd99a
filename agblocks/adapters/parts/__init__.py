"""What methods are made of: thin linear maps, bottlenecks, interventions, chosen positions."""
