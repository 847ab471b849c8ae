"""What tests share: kinds and needs, made models, runs and data, ranks, private services."""
