"""What natsync costs and how fast it is, measured."""
