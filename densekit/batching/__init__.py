"""Which samples each optimizer step consumes, how they are split, and what each token weighs."""
