"""From a ranking to tuned models: plan, search space, training, study."""
